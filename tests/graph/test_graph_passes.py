"""The passes keep what a graph saves and prints, and say where each node came from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamType, Run, inputs
from ndif_batch.graph.passes.common import merge_common
from ndif_batch.graph.passes.dead import drop_dead
from ndif_batch.graph.validate import validate
from tests.graph.graph_cases import UNHURRIED, graphs

Pass = Callable[[Graph], tuple[Graph, tuple[int, ...]]]

SITES = ("s0.output", "s1.output", "s2.output")
RUNS = (Run("a", "a"), Run("b", "b"), Run("c", "c"))


def drop_then_merge(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    dropped, before = drop_dead(graph)
    merged, origin = merge_common(dropped)
    return merged, tuple(before[i] for i in origin)


def merge_then_drop(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    merged, before = merge_common(graph)
    dropped, origin = drop_dead(merged)
    return dropped, tuple(before[i] for i in origin)


PASSES = pytest.mark.parametrize("run_pass", [drop_dead, merge_common, drop_then_merge, merge_then_drop])


class Interpreter:
    """Evaluates graphs of integers over a model of three sites in a row, each computed from the one before.

    A read sees all writes of its run at sites before its own, and those at its own that come earlier in the program. A
    random number belongs to the node as it was submitted.
    """

    def __init__(self, graph: Graph, origin: Sequence[int]) -> None:
        self.graph = graph
        self.origin = origin
        self.values: dict[int, int] = {}

    def outcome(self) -> tuple[dict[str, int], list[int]]:
        """What is saved, by name, and what is printed, in order."""
        prints = [self.value(i) for i, node in enumerate(self.graph.nodes) if node.op == "print"]
        return {name: self.value(i) for name, i in self.graph.saves().items()}, prints

    def value(self, i: int) -> int:
        if i not in self.values:
            self.values[i] = self.compute(i, self.graph.nodes[i])
        return self.values[i]

    def compute(self, i: int, node: Node) -> int:
        args = [self.value(arg.node) if isinstance(arg, NodeRef) else arg for arg in node.args]
        numbers = [arg for arg in args if isinstance(arg, int)]
        match node.op:
            case "add":
                return (numbers[0] + numbers[1]) % 1_000_003
            case "sub":
                return (numbers[0] - numbers[1]) % 1_000_003
            case "mul":
                return (numbers[0] * numbers[1]) % 1_000_003
            case "neg":
                return -numbers[0] % 1_000_003
            case "save" | "print" | "write" | "skip":
                return numbers[0]
            case "randn":
                return self.mix("randn", self.origin[i])
            case "read":
                return self.mix("read", node.run, node.site, self.seen(i, node))
        return self.mix(node.op, node.site, *numbers)

    def seen(self, i: int, read: Node) -> list[tuple[str, str, int]]:
        assert read.site is not None
        place = SITES.index(read.site)
        return [
            (node.op, node.site, self.value(j))
            for j, node in enumerate(self.graph.nodes)
            if node.op in ("write", "skip") and node.run == read.run and node.site is not None
            if SITES.index(f"{node.site.split('.')[0]}.output") < place
            or (j < i and SITES.index(f"{node.site.split('.')[0]}.output") == place)
        ]

    @staticmethod
    def mix(*parts: object) -> int:
        return zlib.crc32(repr(parts).encode()) % 1_000_003


@st.composite
def programs(draw: st.DrawFn) -> Graph:
    """Graphs over few sites, so that much is alike and much is dead; a run is written only from runs before it."""
    nodes: list[Node] = []
    ranks: dict[int, int] = {}

    def operand(below: int) -> Arg:
        known: list[Arg] = [NodeRef(i) for i, rank in ranks.items() if rank < below]
        return draw(st.sampled_from([*known, 1, 2]))

    def add(node: Node, rank: int | None) -> None:
        if rank is not None:
            ranks[len(nodes)] = max([rank, *(ranks[i] for i in inputs(node))])
        nodes.append(node)

    for _ in range(draw(st.integers(0, 24))):
        run, site = draw(st.integers(0, 2)), draw(st.sampled_from(SITES))
        match draw(st.sampled_from(["read", "read", "write", "skip", "binary", "binary", "neg", "other", "print"])):
            case "read":
                add(Node("read", run=run, site=site), run)
            case "write":
                add(Node("write", (operand(run),), run=run, site=site), None)
            case "skip":
                add(Node("skip", (operand(run),), run=run, site=site.removesuffix(".output")), None)
            case "binary":
                op = draw(st.sampled_from(["add", "sub", "mul"]))
                add(Node(op, (operand(3), operand(3))), -1)
            case "neg":
                add(Node("neg", (operand(3),)), -1)
            case "other":
                fixed = [Node("randn", (1,)), Node("weight", site="w"), Node("call", (1,), site="m")]
                add(draw(st.sampled_from(fixed)), -1)
            case "print":
                add(Node("print", (operand(3),), name="seen"), None)
    for k in range(draw(st.integers(1, 3))):
        nodes.append(Node("save", (operand(3),), name=f"s{k}"))
    return Graph({}, RUNS, tuple(nodes))


@PASSES
@settings(UNHURRIED, max_examples=300)
@given(graph=programs())
def test_what_is_saved_and_printed_stays_the_same(run_pass: Pass, graph: Graph) -> None:
    passed, origin = run_pass(graph)
    assert Interpreter(passed, origin).outcome() == Interpreter(graph, range(len(graph.nodes))).outcome()


@PASSES
@UNHURRIED
@given(graph=graphs())
def test_a_valid_graph_stays_valid_and_its_nodes_keep_their_origin(run_pass: Pass, graph: Graph) -> None:
    passed, origin = run_pass(graph)
    validate(passed)
    assert list(origin) == sorted(set(origin))
    assert [node.op for node in passed.nodes] == [graph.nodes[i].op for i in origin]
    assert [node.name for node in passed.nodes] == [graph.nodes[i].name for i in origin]
    assert (passed.params, passed.runs) == (graph.params, graph.runs)


@PASSES
@UNHURRIED
@given(graph=programs())
def test_a_pass_leaves_nothing_for_a_second_time(run_pass: Pass, graph: Graph) -> None:
    passed, _ = run_pass(graph)
    again, origin = run_pass(passed)
    assert (again, origin) == (passed, tuple(range(len(passed.nodes))))


def ops_left(run_pass: Pass, *nodes: Node) -> tuple[int, ...]:
    return run_pass(Graph({"layer": ParamType.INT}, RUNS, nodes))[1]


def read(run: int = 0, site: str = "s1.output") -> Node:
    return Node("read", run=run, site=site)


def write(run: int = 0, site: str = "s1.output", value: Arg = 1) -> Node:
    return Node("write", (value,), run=run, site=site)


def save(value: int, name: str = "x") -> Node:
    return Node("save", (NodeRef(value),), name=name)


def test_what_nothing_saved_needs_is_dropped() -> None:
    assert ops_left(drop_dead, read(), Node("neg", (NodeRef(0),)), read(1), save(2)) == (2, 3)


def test_a_print_keeps_what_it_shows() -> None:
    assert ops_left(drop_dead, read(), Node("print", (NodeRef(0),), name="x"), read(1), save(2)) == (0, 1, 2, 3)


def test_every_write_of_a_run_that_is_read_stays_with_what_it_needs() -> None:
    nodes = (read(0), write(1, value=NodeRef(0)), read(1, "s0.output"), write(1, "s2.output"), save(2))
    assert ops_left(drop_dead, *nodes) == (0, 1, 2, 3, 4)


def test_writes_to_a_run_that_nothing_reads_are_dropped() -> None:
    assert ops_left(drop_dead, read(0), write(1, value=NodeRef(0)), Node("stop", run=1), save(0)) == (0, 3)


def test_what_steers_a_live_run_stays() -> None:
    steered = (Node("steps", (3,), run=0), Node("skip", (1,), run=0, site="s0"), read(), Node("stop", run=0))
    assert ops_left(drop_dead, *steered, save(2)) == (0, 1, 2, 3, 4)


def test_a_gradient_keeps_its_backward_and_the_scalar() -> None:
    nodes = (read(), Node("sum", (NodeRef(0),)), Node("backward", (NodeRef(1),)))
    assert ops_left(drop_dead, *nodes, Node("grad", (NodeRef(0), NodeRef(2))), save(3)) == (0, 1, 2, 3, 4)
    assert ops_left(drop_dead, *nodes, save(0)) == (0, 3)


def test_the_same_read_twice_is_one() -> None:
    assert ops_left(merge_common, read(), read(), save(0), save(1, "y")) == (0, 2, 3)


def test_reads_on_two_sides_of_a_write_are_two() -> None:
    assert ops_left(merge_common, read(), write(), read(), save(0), save(2, "y")) == (0, 1, 2, 3, 4)


def test_a_write_to_another_run_does_not_part_reads() -> None:
    assert ops_left(merge_common, read(), write(1), read(), save(0), save(2, "y")) == (0, 1, 3, 4)


def test_reads_of_two_runs_are_two() -> None:
    assert ops_left(merge_common, read(0), read(1), save(0), save(1, "y")) == (0, 1, 2, 3)


def test_what_is_computed_from_merged_nodes_merges_too() -> None:
    nodes = (read(), read(), Node("neg", (NodeRef(0),)), Node("neg", (NodeRef(1),)))
    assert ops_left(merge_common, *nodes, save(2), save(3, "y")) == (0, 2, 4, 5)


def test_random_numbers_are_never_merged() -> None:
    assert ops_left(merge_common, Node("randn", (3,)), Node("randn", (3,)), save(0), save(1, "y")) == (0, 1, 2, 3)


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (0.0, -0.0), (0, False), ("...", ...)], ids=repr)
def test_values_that_only_compare_equal_are_not_merged(a: Arg, b: Arg) -> None:
    nodes = (read(), Node("add", (NodeRef(0), a)), Node("add", (NodeRef(0), b)))
    assert ops_left(merge_common, *nodes, save(1), save(2, "y")) == (0, 1, 2, 3, 4)


def test_not_a_number_merges_with_itself() -> None:
    nodes = (read(), Node("add", (NodeRef(0), float("nan"))), Node("add", (NodeRef(0), float("nan"))))
    assert ops_left(merge_common, *nodes, save(1), save(2, "y")) == (0, 1, 3, 4)
