"""A graph shown to people: every line short, every reference readable."""

from __future__ import annotations

import pytest
from hypothesis import given

from ndif_batch.graph.nodes import Graph, Node, ParamRef, Run, SliceArg, TensorRef
from ndif_batch.graph.serialize import loads
from ndif_batch.graph.text import to_text
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
