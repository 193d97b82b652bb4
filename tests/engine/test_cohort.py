"""Tasks of one graph that go together: an error is one task's alone, and what is equal for all is done once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest
import torch

from ndif_batch.engine.engine import Engine, NanPolicy, Outcome
from ndif_batch.engine.values import Each, Rows, column, compact, has_nan, joined, of_task, of_tasks
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, TensorRef, Value
from ndif_batch.sweep.task import Task
from tests.families import Subject, family
from tests.oracle import assert_equal, oracle

PROMPT = tuple(range(3, 12))
ALL = SliceArg()
WIDTH = 48
CONSTANTS = {"fits": torch.ones(WIDTH), "short": torch.ones(5), "other": torch.full((WIDTH,), 2.0)}


@pytest.fixture
def subject() -> Subject:
    return family("llama")


def outcomes(subject: Subject, tasks: Sequence[Task], nan: NanPolicy = "allow") -> list[Outcome]:
    engine = Engine(subject.loaded, max_batch_tokens=10_000)
    result = sorted(engine.run(tasks, nan=nan, constants=CONSTANTS), key=lambda outcome: outcome.index)
    assert [outcome.index for outcome in result] == list(range(len(tasks)))
    return result


def sweep(params: Mapping[str, ParamType], values: Sequence[Mapping[str, Value]], *nodes: Node) -> list[Task]:
    """Tasks of one graph, each with a seed of its own."""
    graph = Graph(dict(params), (Run("r", PROMPT),), nodes)
    return [Task(graph, dict(bindings), seed=seed) for seed, bindings in enumerate(values)]


def node(op: str, *args: Arg, **fields: Any) -> Node:
    return Node(op, args, **fields)


def read(site: str) -> Node:
    return Node("read", run=0, site=site)


def save(number: int, name: str = "x") -> Node:
    return Node("save", (NodeRef(number),), name=name)


P = ParamRef("p")
LAST = (read("lm_head.output"), save(1))


@dataclass(frozen=True)
class Fault:
    """A graph with a parameter ``p``; its node ``node`` cannot be done for the ``bad`` value."""

    nodes: tuple[Node, ...]
    kind: ParamType
    good: tuple[Value, ...]
    bad: Value
    node: int
    reason: str
    nan: NanPolicy = "allow"

    def tasks(self, order: Sequence[int]) -> list[Task]:
        """The good values and the bad one in some order; the bad one is the last number."""
        values = (*self.good, self.bad)
        return sweep({"p": self.kind}, [{"p": values[i]} for i in order], *self.nodes)


FAULTS = {
    "take": Fault(
        (read("model.layers.1.output"), node("getitem", NodeRef(0), (0, P)), save(1)),
        ParamType.INT, (0, 4, -1), 9, 1, "out of bounds",
    ),
    "getitem": Fault(
        (read("model.layers.1.output"), node("exp", NodeRef(0)), node("getitem", NodeRef(1), (0, P)), save(2)),
        ParamType.INT, (0, 4, -1), -10, 2, "out of bounds",
    ),
    "position of a write": Fault(
        (node("write", 1.0, run=0, site="model.layers.0.output", index=(ALL, P)), *LAST),
        ParamType.INT, (0, 4, -1), 20, 0, "out of bounds",
    ),
    "value of a write": Fault(
        (node("write", P, run=0, site="model.layers.0.output", index=(ALL, 2)), *LAST),
        ParamType.TENSOR, (TensorRef("fits"), TensorRef("other"), TensorRef("fits")), TensorRef("short"), 0, "size",
    ),
    "save": Fault(
        (read("model.layers.1.self_attn.output"), node("getitem", NodeRef(0), (P,)), save(1)),
        ParamType.INT, (0, -2, 0), 1, 2, "only a tensor or a number can be saved",
    ),
    "call": Fault(
        (
            read("model.norm.output"),
            node("getitem", NodeRef(0), (0, -1, SliceArg(None, P))),
            node("call", NodeRef(1), site="lm_head"),
            save(2),
        ),
        ParamType.INT, (48, 60, 100), 5, 2, "shapes cannot be multiplied",
    ),
    "NaN": Fault(
        (
            read("model.layers.0.output"),
            node("mul", NodeRef(0), P),
            node("write", NodeRef(1), run=0, site="model.layers.0.output"),
            read("lm_head.output"),
            save(3),
        ),
        ParamType.FLOAT, (1.0, 0.5, 2.0), float("nan"), 1, "NaN", "error",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_one_task_leaves_the_others_with_their_values(subject: Subject, what: str) -> None:
    fault = FAULTS[what]
    for order in [(0, 1, 2, 3), (3, 0, 1, 2), (0, 3, 1, 2), (3, 0), (3, 0, 3, 1, 3)]:
        tasks = fault.tasks(order)
        for task, outcome, which in zip(tasks, outcomes(subject, tasks, fault.nan), order, strict=True):
            if which == 3:
                assert outcome.error is not None
                assert outcome.error.node == fault.node
                assert fault.reason in outcome.error.message
                assert not outcome.saves
            else:
                assert outcome.error is None
                assert_equal(what, outcome.saves["x"], oracle(subject, task, CONSTANTS)["x"])


def test_tasks_that_all_fail_are_all_told_why(subject: Subject) -> None:
    for fault in FAULTS.values():
        for outcome in outcomes(subject, fault.tasks((3, 3, 3)), fault.nan):
            assert outcome.error is not None
            assert outcome.error.node == fault.node


def test_tasks_fail_one_after_another_and_the_rest_goes_on(subject: Subject) -> None:
    nodes = (
        read("model.layers.0.output"),
        node("getitem", NodeRef(0), (0, ParamRef("first"))),
        node("print", NodeRef(1), name="row"),
        save(1, "early"),
        read("model.layers.2.output"),
        node("getitem", NodeRef(4), (0, ParamRef("second"))),
        node("add", NodeRef(1), NodeRef(5)),
        save(6),
    )
    params = {"first": ParamType.INT, "second": ParamType.INT}
    places = [(0, 1), (50, 0), (2, 3), (1, 50), (8, -1), (-1, 4)]
    tasks = sweep(params, [{"first": a, "second": b} for a, b in places], *nodes)
    for task, outcome, (first, second) in zip(tasks, outcomes(subject, tasks), places, strict=True):
        if 50 in (first, second):
            assert outcome.error is not None
            assert outcome.error.node == (1 if first == 50 else 5)
            continue
        spoken = Task(
            Graph(params, task.graph.runs, (*nodes[:2], node("clone", NodeRef(1)), *nodes[3:])), task.bindings
        )
        truth = oracle(subject, spoken)
        assert_equal("early", outcome.saves["early"], truth["early"])
        assert_equal("x", outcome.saves["x"], truth["x"])
        assert [name for name, _ in outcome.prints] == ["row"]
        assert outcome.prints[0][1] == str(outcome.saves["early"])


NOISE = (
    read("model.layers.1.output"),
    node("getitem", NodeRef(0), (0, P)),
    node("randn", (WIDTH,)),
    node("add", NodeRef(1), NodeRef(2)),
    save(3),
    save(2, "noise"),
)


def test_random_numbers_stay_with_their_task_when_others_leave_and_in_any_order(subject: Subject) -> None:
    values = [{"p": 1}, {"p": 99}, {"p": 2}, {"p": 1}]
    tasks = sweep({"p": ParamType.INT}, values, *NOISE)
    alone = [None if i == 1 else outcomes(subject, [task])[0].saves["noise"] for i, task in enumerate(tasks)]
    for order in permutations(range(4)):
        for outcome, which in zip(outcomes(subject, [tasks[i] for i in order]), order, strict=True):
            truth = alone[which]
            assert (outcome.error is None) == (truth is not None)
            assert truth is None or torch.equal(outcome.saves["noise"], truth)
    assert alone[0] is not None
    assert alone[3] is not None
    assert not torch.equal(alone[0], alone[3])


def test_tasks_of_one_seed_draw_the_same(subject: Subject) -> None:
    first, second = sweep({"p": ParamType.INT}, [{"p": 1}, {"p": 2}], *NOISE)
    found = outcomes(subject, [first, Task(second.graph, second.bindings, seed=first.seed)])
    assert torch.equal(found[0].saves["noise"], found[1].saves["noise"])


@contextmanager
def calls(subject: Subject, path: str) -> Iterator[list[torch.Size]]:
    """The shapes that a module is given while a graph calls it: the pass itself ends before it."""
    seen: list[torch.Size] = []
    handle = subject.loaded.submodule(path).register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape)
    )
    yield seen
    handle.remove()


def calling(*index: Arg) -> tuple[Node, ...]:
    taken = node("getitem", NodeRef(0), index)
    return (
        read("model.layers.2.output"),
        taken,
        node("call", NodeRef(1), site="lm_head"),
        node("mul", NodeRef(2), P),
        save(3),
    )


def test_what_is_equal_for_all_tasks_is_computed_once(subject: Subject) -> None:
    tasks = sweep({"p": ParamType.FLOAT}, [{"p": 0.5 * i} for i in range(5)], *calling(0, -1))
    with calls(subject, "lm_head") as seen:
        found = outcomes(subject, tasks)
    assert seen == [(WIDTH,)]
    for task, outcome in zip(tasks, found, strict=True):
        assert_equal("x", outcome.saves["x"], oracle(subject, task)["x"])


def test_rows_of_each_tasks_own_go_through_a_module_in_one_call(subject: Subject) -> None:
    tasks = sweep({"p": ParamType.INT}, [{"p": i} for i in range(5)], *calling(0, P))
    with calls(subject, "lm_head") as seen:
        outcomes(subject, tasks)
    assert len(seen) == 1


def test_parts_of_different_lengths_go_through_a_module_one_by_one(subject: Subject) -> None:
    tasks = sweep({"p": ParamType.INT}, [{"p": i} for i in range(1, 5)], *calling(0, SliceArg(None, P)))
    with calls(subject, "lm_head") as seen:
        found = outcomes(subject, tasks)
    assert seen == [(i, WIDTH) for i in range(1, 5)]
    for task, outcome in zip(tasks, found, strict=True):
        assert_equal("x", outcome.saves["x"], oracle(subject, task)["x"])


def test_no_two_results_share_memory(subject: Subject) -> None:
    nodes = (
        read("model.layers.1.output"),
        node("getitem", NodeRef(0), (0, P)),
        node("expand", NodeRef(1), (3, WIDTH)),
        save(0, "whole"),
        save(0, "again"),
        save(1, "row"),
        save(2, "rows"),
        node("weight", site="model.norm.weight"),
        save(7, "weight"),
    )
    tasks = sweep({"p": ParamType.INT}, [{"p": 1}, {"p": 2}, {"p": 1}], *nodes)
    weight = subject.loaded.weight("model.norm.weight").clone()
    for some in (tasks, tasks[:1], [tasks[0], tasks[2]]):
        found = [(name, value) for outcome in outcomes(subject, some) for name, value in outcome.saves.items()]
        assert len(found) == 5 * len(some)
        for number, (_, value) in enumerate(found):
            value.fill_(number)
        for number, (name, value) in enumerate(found):
            assert bool((value == number).all()), name
    assert torch.equal(subject.loaded.weight("model.norm.weight"), weight)


def test_what_is_printed_is_each_tasks_own_and_in_order(subject: Subject) -> None:
    nodes = (
        read("model.layers.1.output"),
        node("getitem", NodeRef(0), (0, P, 0)),
        node("getitem", NodeRef(0), (0, 0, 0)),
        node("print", NodeRef(1), name="own"),
        node("print", NodeRef(2), name="shared"),
        save(1, "own"),
        save(2, "shared"),
    )
    for outcome in outcomes(subject, sweep({"p": ParamType.INT}, [{"p": i} for i in (1, 4, 1)], *nodes)):
        assert outcome.prints == tuple((name, str(outcome.saves[name].item())) for name in ("own", "shared"))


def test_the_sign_of_zero_is_each_tasks_own(subject: Subject) -> None:
    nodes = (node("full", (2,), P), node("reciprocal", NodeRef(0)), save(1))
    found = outcomes(subject, sweep({"p": ParamType.FLOAT}, [{"p": 0.0}, {"p": -0.0}], *nodes))
    assert [outcome.saves["x"].tolist() for outcome in found] == [[float("inf")] * 2, [float("-inf")] * 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 1), 1),
        ((1, 2), Rows((1, 2))),
        ((1, True), Rows((1, True))),
        ((1, 1.0), Rows((1, 1.0))),
        ((0.0, -0.0), Rows((0.0, -0.0))),
        (("a", "a"), "a"),
        ((None, None), None),
    ],
    ids=str,
)
def test_only_what_is_the_same_in_every_way_is_one_value(values: tuple[Any, ...], expected: Any) -> None:
    assert repr(joined(values)) == repr(expected)
    assert repr(column(values)) == repr(expected)


def test_values_of_tasks_come_apart_as_they_were_put_together() -> None:
    tensors = [torch.ones(2) * i for i in range(3)]
    pairs = [(tensor, torch.zeros(i)) for i, tensor in enumerate(tensors)]
    together = joined(pairs)
    assert isinstance(together[0], Each)
    assert isinstance(together[1], Rows)
    for task, (one, other) in enumerate(pairs):
        assert torch.equal(of_task(together, task)[0], one)
        assert torch.equal(of_task(together, task)[1], other)
    some = of_tasks((together, slice(Rows((1, 2, 3)), None)), [2, 0])
    assert torch.equal(some[0][0].stacked, torch.stack([tensors[2], tensors[0]]))
    assert of_task(some[1], 0) == slice(3, None)
    assert of_task(some[1], 1) == slice(1, None)


def test_nan_is_found_in_the_tasks_that_have_it() -> None:
    bad, good = torch.tensor([1.0, float("nan")]), torch.ones(2)
    assert has_nan(Each(torch.stack([good, bad, good])), 3) == [1]
    assert has_nan((Rows((bad, 1, torch.ones(3, dtype=torch.int64))), Each(torch.stack([good, good, bad]))), 3) == [
        0,
        2,
    ]
    assert has_nan(bad, 3) == [0, 1, 2]
    assert has_nan(Each(torch.ones(3, 2, dtype=torch.int64)), 3) == []


def test_a_small_part_does_not_keep_a_large_tensor() -> None:
    large = torch.zeros(100, 100)
    assert compact(large[0]).untyped_storage().nbytes() == 400
    assert compact(Each(large[:, :1])).stacked.untyped_storage().nbytes() == 400
    assert compact(large) is large
