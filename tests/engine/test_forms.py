"""Graphs of equal structure are one program, whatever else they are; those of another structure are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.prepare import Preparation
from ndif_batch.engine.program import Program
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, TensorRef
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.oracle import assert_equal, oracle

ALL = SliceArg()


def output(block: int) -> str:
    return f"model.layers.{block}.output"


def steered(
    *,
    prompt: tuple[int, ...] = (3, 4, 5, 6),
    written: int = 0,
    position: int = 1,
    factor: float = 2.0,
    neurons: SliceArg = ALL,
    read: int = 2,
    name: str = "x",
) -> Task:
    """Neurons of a block's output at a position times a factor; what another block puts out at the end is saved."""
    nodes = (
        Node("read", run=0, site=output(written)),
        Node("getitem", (NodeRef(0), (ALL, position, neurons))),
        Node("mul", (NodeRef(1), factor)),
        Node("write", (NodeRef(2),), run=0, site=output(written), index=(ALL, position, neurons)),
        Node("read", run=0, site=output(read)),
        Node("getitem", (NodeRef(4), (ALL, -1))),
        Node("save", (NodeRef(5),), name=name),
    )
    return Task(Graph({}, (Run("r", prompt),), nodes))


def programs(*tasks: Task, constants: dict[str, torch.Tensor] | None = None) -> list[Program]:
    preparation = Preparation(family("llama").loaded, solo=False, constants=constants or {})
    return [preparation.task(index, task).program for index, task in enumerate(tasks)]


def are_right(*tasks: Task) -> None:
    subject = family("llama")
    outcomes = sorted(Engine(subject.loaded).run(tasks), key=lambda outcome: outcome.index)
    for task, outcome in zip(tasks, outcomes, strict=True):
        assert outcome.error is None, outcome.error
        expected = oracle(subject, task)
        assert outcome.saves.keys() == expected.keys()
        for saved, value in expected.items():
            assert_equal(saved, outcome.saves[saved], value)


def test_prompts_places_factors_and_names_make_no_other_program() -> None:
    tasks = (
        steered(),
        steered(prompt=(9, 8, 7), name="other"),
        steered(position=2, factor=-0.0),
        steered(factor=0.0, name="third"),
    )
    assert len(set(map(id, programs(*tasks)))) == 1
    are_right(*tasks)


@pytest.mark.parametrize(
    "other",
    [
        steered(written=1),
        steered(read=1),
        steered(neurons=SliceArg(1, 3)),
        steered(written=2, read=0),
        steered(factor=2),
    ],
    ids=["written", "read", "neurons", "read before it is written", "an int"],
)
def test_sites_slices_and_kinds_of_numbers_make_another(other: Task) -> None:
    first, second = programs(steered(), other)
    assert first is not second
    are_right(steered(), other, steered(written=1, read=1, neurons=SliceArg(2, 5)))


def test_what_was_the_same_twice_is_not_taken_for_what_was_not() -> None:
    def added(first: float, second: float) -> Task:
        nodes = (
            Node("read", run=0, site=output(0)),
            Node("mul", (NodeRef(0), first)),
            Node("mul", (NodeRef(0), second)),
            Node("add", (NodeRef(1), NodeRef(2))),
            Node("save", (NodeRef(3),), name="x"),
        )
        return Task(Graph({}, (Run("r", (3, 4, 5)),), nodes))

    tasks = added(2.0, 2.0), added(3.0, 3.0), added(2.0, 3.0)
    same, again, other = programs(*tasks)
    assert same is again
    assert len(other.graph.nodes) == len(same.graph.nodes) + 1
    are_right(*tasks)


def test_parameters_of_other_names_in_another_order_are_the_same_parameters() -> None:
    def graph(factor: str, position: str, *, turned: bool) -> Graph:
        task = steered()
        nodes = list(task.graph.nodes)
        nodes[2] = replace(nodes[2], args=(NodeRef(1), ParamRef(factor)))
        nodes[1] = replace(nodes[1], args=(NodeRef(0), (ALL, ParamRef(position), ALL)))
        nodes[3] = replace(nodes[3], index=(ALL, ParamRef(position), ALL))
        kinds = {factor: ParamType.FLOAT, position: ParamType.INT}
        return Graph(dict(reversed(kinds.items())) if turned else kinds, task.graph.runs, tuple(nodes))

    tasks = (
        Task(graph("a", "b", turned=False), {"a": 2.0, "b": 1}),
        Task(graph("b", "a", turned=True), {"a": 2, "b": 3.0}),
    )
    first, second = programs(*tasks)
    assert first is second
    are_right(*tasks)


def test_a_tensor_is_of_its_own_program() -> None:
    def with_tensor(digest: str) -> Task:
        value: Arg = TensorRef(digest)
        nodes = (Node("square", (value,)), Node("save", (NodeRef(0),), name="x"))
        return Task(Graph({}, (Run("r", (3, 4)),), nodes))

    constants = {"a": torch.ones(2), "b": torch.zeros(3)}
    tasks = [with_tensor("a"), with_tensor("b"), with_tensor("a")]
    first, second, third = programs(*tasks, constants=constants)
    assert first is third
    assert first is not second
    outcomes = sorted(Engine(family("llama").loaded).run(tasks, constants=constants), key=lambda outcome: outcome.index)
    assert [outcome.saves["x"].tolist() for outcome in outcomes] == [[1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0]]
