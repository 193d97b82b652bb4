"""Generation: tasks that generate together save what each of them would alone, step by step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.engine import Engine, LayoutChoice
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.generating import random_generation
from tests.graphs import random_task
from tests.oracle import Restless, Unknown, assert_equal, oracle_of

FAMILIES = ("llama", "gpt2", "qwen3", "gemma3_text", "gpt_neox", "opt", "mixtral", "gpt_oss", "bloom", "mamba")
SEEDS = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(seeds=SEEDS, others=st.lists(st.integers(0, 10**6), max_size=2))
def test_random_generations_together_equal_the_oracle(name: str, seeds: list[int], others: list[int]) -> None:
    sites = family(name).loaded.sites
    check(name, [random_generation(seed, sites) for seed in seeds] + [random_task(seed, sites) for seed in others])


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=3, deadline=None)
@given(seeds=SEEDS)
def test_random_generations_run_solo_equal_the_oracle(name: str, seeds: list[int]) -> None:
    check(name, [random_generation(seed, family(name).loaded.sites) for seed in seeds], layout="solo")


def check(name: str, tasks: list[Task], layout: LayoutChoice = "auto") -> None:
    subject = family(name)
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, layout=layout)}
    assert sorted(outcomes) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        outcome = outcomes[index]
        alone = oracle_of(subject, task)
        try:
            truth = alone.saves()
        except (Restless, Unknown, IndexError, RuntimeError, ValueError):
            assert outcome.error is not None, task
            continue
        if outcome.error is not None and (alone.skipped or "depends on itself" in str(outcome.error)):
            continue
        assert outcome.error is None, (outcome.error, task)
        assert outcome.saves.keys() == truth.keys()
        for save, value in truth.items():
            assert_equal(f"{task}, {save}", outcome.saves[save], value)
