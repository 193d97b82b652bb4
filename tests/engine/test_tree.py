"""Runs that begin with the same changes share these, and each has the values that it has alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.oracle import assert_equal, oracle

PROMPT = (3, 4, 5, 6, 7, 8)
LENGTH, BLOCKS = len(PROMPT), 3
ALL = SliceArg()


def output(block: int) -> str:
    return f"model.layers.{block}.output"


def scaled(*changes: tuple[int, int, float], random: bool = False) -> Task:
    """One position of a block's output times a factor, for each change; the end of the run is saved."""
    nodes: list[Node] = []
    for block, position, factor in changes:
        nodes.append(Node("read", run=0, site=output(block)))
        nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (ALL, position))))
        nodes.append(Node("mul", (NodeRef(len(nodes) - 1), factor)))
        if random:
            nodes.append(Node("rand_like", (NodeRef(len(nodes) - 1),)))
        nodes.append(Node("write", (NodeRef(len(nodes) - 1),), run=0, site=output(block), index=(ALL, position)))
    nodes.append(Node("read", run=0, site=output(BLOCKS - 1)))
    nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name="x"))
    return Task(Graph({}, (Run("r", PROMPT),), tuple(nodes)))


def seen() -> Task:
    """The run as it is, to the end."""
    nodes = (Node("read", run=0, site=output(BLOCKS - 1)), Node("save", (NodeRef(0),), name="x"))
    return Task(Graph({}, (Run("r", PROMPT),), nodes))


def tokens_of(tasks: list[Task], name: str = "llama", loaded: LoadedModel | None = None) -> int:
    """How many tokens an engine computes for tasks, whose values it compares with those that each has alone."""
    subject = family(name)
    engine = Engine(loaded or subject.loaded, max_batch_tokens=10_000)
    for outcome in engine.run(tasks):
        assert outcome.error is None, outcome.error
        for saved, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(saved, outcome.saves[saved], value)
    return engine.counters.tokens


def test_what_runs_have_in_common_at_first_is_computed_once() -> None:
    tasks = [seen(), *[scaled((0, 1, 2.0), (1, 4, factor)) for factor in (3.0, 4.0, 5.0)]]
    assert tokens_of(tasks) == LENGTH + (LENGTH - 1) + 3 * (LENGTH - 4)


def test_a_run_with_the_first_change_alone_is_the_branch_that_the_others_leave() -> None:
    tasks = [seen(), scaled((0, 1, 2.0)), scaled((0, 1, 2.0), (1, 4, 3.0)), scaled((0, 1, 2.0), (1, 5, 3.0))]
    assert tokens_of(tasks) == LENGTH + (LENGTH - 1) + (LENGTH - 4) + (LENGTH - 5)


def test_a_later_change_may_begin_before_the_first_one() -> None:
    tasks = [seen(), scaled((0, 4, 2.0)), *[scaled((0, 4, 2.0), (1, 2, factor)) for factor in (3.0, 4.0)]]
    assert tokens_of(tasks) == LENGTH + (LENGTH - 4) + 2 * (LENGTH - 2)


def test_what_would_be_more_to_compute_is_not_shared() -> None:
    tasks = [seen(), *[scaled((0, 1, 2.0), (1, 2, factor)) for factor in (3.0, 4.0)]]
    assert tokens_of(tasks) == LENGTH + 2 * (LENGTH - 1)


@pytest.mark.parametrize(("factor", "position"), [(2.5, 1), (2.0, 2)])
def test_first_changes_that_differ_in_anything_are_apart(factor: float, position: int) -> None:
    tasks = [seen(), scaled((0, 1, 2.0), (1, 4, 3.0)), scaled((0, position, factor), (1, 4, 4.0))]
    assert tokens_of(tasks) == LENGTH + (LENGTH - 1) + (LENGTH - position)


def test_infinity_in_what_is_shared_reaches_the_tokens_that_it_would_reach_alone() -> None:
    infinite = (0, 2, 1e39)
    tokens_of([seen(), scaled(infinite), *[scaled(infinite, (1, 5, factor)) for factor in (3.0, 4.0, 5.0)]])


def test_random_changes_are_each_ones_own() -> None:
    tasks = [seen(), *[scaled((0, 1, 2.0), (1, 4, factor), random=True) for factor in (3.0, 4.0, 5.0)]]
    assert tokens_of(tasks) == LENGTH + 3 * (LENGTH - 1)


def test_tasks_of_one_graph_that_sweep_the_second_change_share_the_first() -> None:
    nodes = (
        Node("write", (0.0,), run=0, site=output(0), index=(ALL, 1)),
        Node("write", (ParamRef("value"),), run=0, site=output(1), index=(ALL, ParamRef("position"))),
        Node("read", run=0, site=output(2)),
        Node("save", (NodeRef(2),), name="x"),
    )
    graph = Graph({"value": ParamType.FLOAT, "position": ParamType.INT}, (Run("r", PROMPT),), nodes)
    tasks = [seen(), *[Task(graph, {"value": value, "position": 4}) for value in (0.5, 1.5, 2.5, 3.5)]]
    assert tokens_of(tasks) == LENGTH + (LENGTH - 1) + 4 * (LENGTH - 4)


A_CHANGE = st.tuples(st.integers(0, BLOCKS - 1), st.sampled_from((0, 2, 5)), st.sampled_from((2.0, 3.0)))
CHANGES = st.lists(A_CHANGE, min_size=0, max_size=3, unique_by=lambda change: change[0]).map(sorted)


@settings(max_examples=40, deadline=None)
@given(histories=st.lists(CHANGES, min_size=2, max_size=9), causal=st.booleans())
def test_any_histories_together_have_the_values_of_each_alone(
    histories: list[list[tuple[int, int, float]]], causal: bool
) -> None:
    loaded = family("llama").loaded
    tokens_of([scaled(*changes) for changes in histories], loaded=loaded if causal else loaded.without_borrowing())
