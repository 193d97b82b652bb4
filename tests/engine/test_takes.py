"""Of a read only what is used is taken, at the moment of the read."""

import pytest

from ndif_batch.engine.program import compile_task, optimise
from ndif_batch.engine.takes import reads_as_takes
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from tests.families import family

SITES = family("llama").loaded.sites
A = Run("a", (1, 2, 3, 4))
ALL = SliceArg()
PARAMS = {"at": ParamType.INT, "share": ParamType.FLOAT}


def taken(*nodes: Node) -> Graph:
    graph, _ = reads_as_takes(Graph(PARAMS, (A,), nodes), tuple(range(len(nodes))), SITES)
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


READ = Node("read", run=0, site="model.layers.1.output")


@pytest.mark.parametrize(
    ("index", "parts"),
    [
        ((0, -1), (0, -1, ALL)),
        ((..., 5), (ALL, ALL, 5)),
        ((0,), (0, ALL, ALL)),
        (0, (0, ALL, ALL)),
        ((ALL, SliceArg(-2)), (ALL, SliceArg(-2), ALL)),
        ((0, ParamRef("at"), ...), (0, ParamRef("at"), ALL)),
        ((0, SliceArg(None, ParamRef("at"))), (0, SliceArg(None, ParamRef("at")), ALL)),
    ],
)
def test_a_plain_index_has_one_part_for_each_axis(index: Arg, parts: tuple[Arg, ...]) -> None:
    graph = taken(READ, Node("getitem", (NodeRef(0), index)), Node("save", (NodeRef(1),), name="x"))
    assert ops(graph) == ["take", "save"]
    assert graph.nodes[0].index == parts


@pytest.mark.parametrize(
    "index",
    [(None, 0, -1), (0, (1, 2)), (0, True), (0, ParamRef("share")), (0, 1, 2, 3), (0, NodeRef(1))],
    ids=["new axis", "list", "mask", "no int", "too many", "computed"],
)
def test_any_other_index_leaves_the_read_whole(index: tuple[Arg, ...]) -> None:
    nodes = (READ, Node("arange", (2,)), Node("getitem", (NodeRef(0), index)), Node("save", (NodeRef(2),), name="x"))
    assert ops(taken(*nodes)) == ["read", "arange", "getitem", "save"]


def test_a_read_of_which_all_is_used_somewhere_stays() -> None:
    nodes = (READ, Node("getitem", (NodeRef(0), (0, 1))), Node("exp", (NodeRef(0),)))
    assert ops(taken(*nodes)) == ["read", "getitem", "exp"]


def test_a_take_comes_before_a_write_that_follows_its_read() -> None:
    nodes = (
        READ,
        Node("write", (0.0,), run=0, site="model.layers.1.output"),
        Node("getitem", (NodeRef(0), (0, 1))),
        Node("save", (NodeRef(2),), name="x"),
    )
    graph = Graph({}, (A,), nodes)
    made, origin = reads_as_takes(graph, (0, 1, 2, 3), SITES)
    assert ops(made) == ["take", "write", "save"]
    assert origin == (2, 1, 3)
    assert made.nodes[2].args == (NodeRef(0),)


def test_parts_of_an_item_of_a_tuple_are_taken_of_the_item() -> None:
    site = next(s for s in SITES.sites.values() if isinstance(s.value, tuple) and s.refused is None)
    nodes = (
        Node("read", run=0, site=site.path),
        Node("getitem", (NodeRef(0), (0,))),
        Node("getitem", (NodeRef(1), (0, 2))),
        Node("save", (NodeRef(2),), name="x"),
    )
    graph = taken(*nodes)
    assert ops(graph) == ["take", "save"]
    assert graph.nodes[0].index == (0, 0, 2, ALL)
    assert ops(taken(*nodes[:2], Node("save", (NodeRef(1),), name="x"))) == ["take", "save"]


def test_a_program_reads_no_more_than_its_takes() -> None:
    nodes = (READ, Node("getitem", (NodeRef(0), (0, 1))), Node("save", (NodeRef(1),), name="x"))
    program = compile_task(*optimise(Graph({}, (A,), nodes)), SITES)
    assert [program.graph.nodes[entry.node].op for entry in program.entries] == ["take", "save"]
