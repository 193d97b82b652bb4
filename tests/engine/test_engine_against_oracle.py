"""Alone = together: random graphs in random company save what they would have saved alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.engine import Engine, LayoutChoice
from tests.families import FAMILIES, family
from tests.graphs import random_sweep, random_task
from tests.oracle import assert_equal, oracle

SEEDS = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)
TOGETHER, SWEEPS = 220, 450
"""Random co-batches of each family."""


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=TOGETHER, deadline=None)
@given(seeds=SEEDS)
def test_random_graphs_together_equal_the_oracle(name: str, seeds: list[int]) -> None:
    check(name, seeds, layout="auto")


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(seeds=SEEDS)
def test_random_graphs_run_solo_equal_the_oracle(name: str, seeds: list[int]) -> None:
    check(name, seeds, layout="solo")


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=SWEEPS, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3))
def test_sweeps_of_random_graphs_beside_each_other_equal_the_oracle(name: str, seeds: list[int]) -> None:
    """Branches of shared trunks, nodes for many tasks at once, and tasks that fail in the middle of both."""
    subject = family(name)
    tasks = [task for seed in seeds for task in random_sweep(seed, subject.loaded.sites, 5)]
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks)}
    assert sorted(outcomes) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        try:
            truth = oracle(subject, task)
        except (IndexError, RuntimeError, ValueError):
            continue
        assert outcomes[index].error is None, outcomes[index].error
        for save, value in truth.items():
            assert_equal(f"{task}, {save}", outcomes[index].saves[save], value)


def test_two_thousand_random_batches_are_compared() -> None:
    assert (TOGETHER + SWEEPS) * len(FAMILIES) >= 2000


def check(name: str, seeds: list[int], layout: LayoutChoice) -> None:
    subject = family(name)
    tasks = [random_task(seed, subject.loaded.sites) for seed in seeds]
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, layout=layout)}
    assert sorted(outcomes) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        truth = oracle(subject, task)
        assert outcomes[index].saves.keys() == truth.keys()
        for save, value in truth.items():
            assert_equal(f"seed {task.seed}, {save}", outcomes[index].saves[save], value)
