"""Runs to which the same is done are one run, of whatever tasks; whoever differs in anything is apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, Value
from ndif_batch.sweep.task import Task
from tests.families import Subject, family
from tests.oracle import assert_equal, oracle

PROMPT, OTHER = (3, 4, 5, 6, 7, 8), (9, 4, 5, 6, 7, 8)
LENGTH = len(PROMPT)
ALL = SliceArg()


def output(block: int) -> str:
    return f"model.layers.{block}.output"


def scaling(factor: Arg = 2.0, block: int = 0, seen: int = 2, params: dict[str, ParamType] | None = None) -> Graph:
    """A block's output times a factor, in place; the run is read after another block."""
    nodes = (
        Node("read", run=0, site=output(block)),
        Node("mul", (NodeRef(0), factor)),
        Node("write", (NodeRef(1),), run=0, site=output(block)),
        Node("read", run=0, site=output(seen)),
        Node("save", (NodeRef(3),), name="x"),
    )
    return Graph(params or {}, (Run("r", PROMPT),), nodes)


def tokens_of(tasks: list[Task], name: str = "llama") -> int:
    """How many tokens an engine computes for tasks, whose values it compares with those that each has alone."""
    subject: Subject = family(name)
    engine = Engine(subject.loaded, max_batch_tokens=10_000)
    outcomes = list(engine.run(tasks))
    assert len(outcomes) == len(tasks)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
        for saved, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(saved, outcome.saves[saved], value)
    return engine.counters.tokens


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj"])
def test_tasks_that_change_the_same_and_read_at_other_layers_are_one_run(name: str) -> None:
    def site(block: int) -> str:
        return f"{'model.layers' if name == 'llama' else 'transformer.h'}.{block}.mlp.output"

    def ablated(seen: int) -> Task:
        read = Node("read", run=0, site=site(seen)), Node("save", (NodeRef(1),), name="x")
        return Task(Graph({}, (Run("r", PROMPT),), (Node("write", (0.0,), run=0, site=site(0), index=(ALL, 2)), *read)))

    assert tokens_of([ablated(seen) for seen in (0, 1, 2)] * 2, name) == LENGTH


def test_a_change_in_place_is_made_once_whatever_the_graphs() -> None:
    assert tokens_of([Task(scaling(seen=seen)) for seen in (1, 2, 2)]) == LENGTH


def test_one_who_reads_before_the_write_does_not_see_what_another_has_written() -> None:
    plain = scaling()
    nodes = (
        *plain.nodes[:1],
        Node("save", (NodeRef(0),), name="before"),
        Node("mul", (NodeRef(0), 2.0)),
        Node("write", (NodeRef(2),), run=0, site=output(0)),
        Node("read", run=0, site=output(0)),
        Node("save", (NodeRef(4),), name="after"),
    )
    curious = replace(plain, nodes=nodes)
    assert tokens_of([Task(plain), Task(curious), Task(scaling(seen=1))]) == LENGTH


def test_names_of_parameters_do_not_matter_but_their_values_and_types_do() -> None:
    def bound(name: str, kind: ParamType, value: Value) -> Task:
        return Task(scaling(ParamRef(name), params={name: kind}), {name: value})

    same = [bound("a", ParamType.FLOAT, 3.0), bound("b", ParamType.FLOAT, 3.0)]
    assert tokens_of(same) == LENGTH
    assert tokens_of([*same, bound("a", ParamType.FLOAT, 4.0)]) > LENGTH
    assert tokens_of([bound("a", ParamType.FLOAT, 0.0), bound("a", ParamType.FLOAT, -0.0)]) > LENGTH
    assert tokens_of([same[0], bound("a", ParamType.INT, 3)]) > LENGTH


def patching(clean: tuple[int, ...], seen: int, before: tuple[Node, ...] = ()) -> Task:
    """A vector of a clean run, to which ``before`` is done, in place of another's."""
    first = len(before)
    nodes = (
        *before,
        Node("read", run=0, site=output(0)),
        Node("getitem", (NodeRef(first), (ALL, 1))),
        Node("write", (NodeRef(first + 1),), run=1, site=output(0), index=(ALL, 1)),
        Node("read", run=1, site=output(seen)),
        Node("save", (NodeRef(first + 3),), name="x"),
    )
    return Task(Graph({}, (Run("clean", clean), Run("corrupted", PROMPT)), nodes))


def test_what_is_written_is_the_same_if_it_comes_from_the_same_run() -> None:
    same = tokens_of([patching(OTHER, 1), patching(OTHER, 2)])
    assert tokens_of([patching(OTHER, 1)]) == same
    assert tokens_of([patching(OTHER, 1), patching((*OTHER[:-1], 40), 1)]) > same


def test_a_change_of_the_run_that_is_read_counts() -> None:
    ahead = Node("write", (0.5,), run=0, site="model.embed_tokens.output", index=(ALL, 0))
    assert tokens_of([patching(OTHER, 1), patching(OTHER, 1, (ahead,))]) > tokens_of([patching(OTHER, 1)]) + LENGTH


def test_a_task_that_fails_leaves_the_run_to_the_others() -> None:
    wrong = scaling()
    nodes = (*wrong.nodes[:4], Node("getitem", (NodeRef(3), (0, 99))), Node("save", (NodeRef(4),), name="x"))
    subject = family("llama")
    engine = Engine(subject.loaded)
    tasks = [Task(replace(wrong, nodes=nodes)), Task(scaling()), Task(scaling(seen=1))]
    outcomes = {outcome.index: outcome for outcome in engine.run(tasks)}
    assert outcomes[0].error is not None
    assert engine.counters.tokens == LENGTH
    for index in (1, 2):
        assert_equal("x", outcomes[index].saves["x"], oracle(subject, tasks[index])["x"])


def test_random_numbers_are_each_tasks_own() -> None:
    nodes = (
        Node("randn", ((1, LENGTH, 1),)),
        Node("write", (NodeRef(0),), run=0, site=output(0)),
        Node("read", run=0, site=output(1)),
        Node("save", (NodeRef(2),), name="x"),
    )
    graph = Graph({}, (Run("r", PROMPT),), nodes)
    assert tokens_of([Task(graph, seed=1), Task(graph, seed=2)]) > LENGTH
