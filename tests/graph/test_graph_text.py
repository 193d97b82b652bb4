"""A graph shown to people: every line short, every reference readable."""

from __future__ import annotations

import pytest
from hypothesis import given

from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, Run, SliceArg, TensorRef
from ndif_batch.graph.serialize import loads
from ndif_batch.graph.text import differences, to_text
from tests.graph.graph_cases import GOLDEN, UNHURRIED, graphs


def test_activation_patching_reads_as_a_program() -> None:
    graph = loads((GOLDEN / "activation_patching.json").read_bytes())
    assert to_text(graph).splitlines() == [
        "param {clean}: prompt",
        "param {corrupted}: prompt",
        "param {layer}: int",
        "param {position}: int",
        "param {answer}: int",
        "param {distractor}: int",
        "run clean = {clean}",
        "run corrupted = {corrupted}",
        "%0 = read(clean, model.layers.{layer}.output)",
        "%1 = getitem(%0, [:, {position}])",
        "%2 = write(corrupted, model.layers.{layer}.output[:, {position}], %1)",
        "%3 = read(corrupted, lm_head.output)",
        "%4 = getitem(%3, [0, -1])",
        "%5 = getitem(%4, {answer})",
        "%6 = getitem(%4, {distractor})",
        "%7 = sub(%5, %6)",
        "%8 = save(logit_diff, %7, dims=[])",
    ]


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        ((..., SliceArg(1, None, -1), SliceArg(ParamRef("a"))), "[..., 1::-1, {a}:]"),
        (TensorRef("0123456789abcdef" * 4), "tensor:0123456789ab"),
        ((None, True, 1, 1.0, float("-inf"), "a\n\x1b[2J"), "[None, True, 1, 1.0, -inf, 'a\\n\\x1b[2J']"),
        (tuple(range(4000)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, … 4,000 items]"),
    ],
    ids=["index", "tensor", "literals", "long"],
)
def test_each_argument_has_its_own_look(arg: object, text: str) -> None:
    node = Node("op", (arg,), (("dim", -1),))  # type: ignore[arg-type]
    assert to_text(Graph({}, (), (node,))) == f"%0 = op({text}, dim=-1)\n"


def test_a_long_prompt_takes_one_short_line() -> None:
    assert len(to_text(Graph({}, (Run("a", "word\n" * 10_000),), ()))) < 100


@UNHURRIED
@given(graphs())
def test_every_node_has_its_line(graph: Graph) -> None:
    lines = to_text(graph).splitlines()
    assert [line.split(" ")[0] for line in lines[-len(graph.nodes) :]] == [f"%{i}" for i in range(len(graph.nodes))]


def test_a_difference_is_told_by_what_nodes_do_and_not_by_their_numbers() -> None:
    nodes = (
        Node("read", run=0, site="layers.0.output"),
        Node("read", run=0, site="layers.1.output"),
        Node("sub", (NodeRef(0), NodeRef(1))),
        Node("save", (NodeRef(2),), name="difference"),
    )
    one = Graph(params={}, runs=(Run("only", "a"),), nodes=nodes)
    more = (nodes[0], Node("relu", (NodeRef(0),)), nodes[1], Node("sub", (NodeRef(0), NodeRef(2))))
    longer = Graph(params={}, runs=one.runs, nodes=(*more, Node("save", (NodeRef(3),), name="difference")))
    assert list(differences(one, one)) == [f"  {line}" for line in to_text(one).splitlines()]
    assert list(differences(one, longer)) == [
        "  run only = 'a'",
        "  %0 = read(only, layers.0.output)",
        "+ %1 = relu(%0)",
        "  %2 = read(only, layers.1.output)",
        "  %3 = sub(%0, %2)",
        "  %4 = save(difference, %3)",
    ]
    turned = Graph(params={}, runs=one.runs, nodes=(*nodes[:2], Node("sub", (NodeRef(1), NodeRef(0))), nodes[3]))
    assert [line for line in differences(one, turned) if line[0] != " "][:2] == [
        "- %2 = sub(%0, %1)",
        "+ %2 = sub(%1, %0)",
    ]
