"""Inference: what each node will be is known before a model runs, and errors name node, operation and run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ndif_batch.errors import ModelError, ShapeError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.infer import infer, total_cost
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run, SliceArg, TensorRef
from ndif_batch.graph.sites import SiteMap
from tests.site_maps import gpt2, llama

LLAMA = llama(layers=3, width=8, mlp=32, keys=4, vocabulary=50)
GPT2 = gpt2()
ALL = SliceArg()
CLEAN, CORRUPTED = 0, 1
HIDDEN = "model.layers.1.output"


def f(*shape: int, dtype: str = "float32") -> AbstractTensor:
    return AbstractTensor(shape, dtype)


def graph(*nodes: Node) -> Graph:
    return Graph({}, (Run("clean", tuple(range(17))), Run("corrupted", tuple(range(5)))), nodes)


def read(site: str = HIDDEN, run: int = CLEAN) -> Node:
    return Node("read", run=run, site=site)


def write(value: Any, *index: Any, site: str = HIDDEN, run: int = CLEAN) -> Node:
    return Node("write", (value,), run=run, site=site, index=index or None)


def last(*nodes: Node, sites: SiteMap = LLAMA) -> Any:
    return infer(graph(*nodes), sites)[-1]


def message(*nodes: Node, sites: SiteMap = LLAMA) -> str:
    with pytest.raises(ShapeError) as caught:
        infer(graph(*nodes), sites)
    return str(caught.value)


def test_a_read_has_the_length_of_its_own_run() -> None:
    assert infer(graph(read(), read(run=CORRUPTED), read("lm_head.output")), LLAMA) == [
        f(1, 17, 8),
        f(1, 5, 8),
        f(1, 17, 50),
    ]


def test_a_read_of_a_tuple_site_is_a_tuple() -> None:
    value = infer(graph(read("transformer.h.0.attn.output"), Node("getitem", (NodeRef(0), 0))), GPT2)
    assert value == [(f(1, 17, 8), None), f(1, 17, 8)]


def test_patching_is_inferred_node_by_node() -> None:
    patched = graph(
        read(),
        Node("getitem", (NodeRef(0), (ALL, 4))),
        write(NodeRef(1), ALL, 4, run=CORRUPTED),
        read("lm_head.output", CORRUPTED),
        Node("getitem", (NodeRef(3), (0, -1))),
        Node("getitem", (NodeRef(4), 7)),
        Node("getitem", (NodeRef(4), 9)),
        Node("sub", (NodeRef(5), NodeRef(6))),
        Node("save", (NodeRef(7),), name="difference"),
    )
    values = infer(patched, LLAMA)
    assert values == [f(1, 17, 8), f(1, 8), None, f(1, 5, 50), f(50), f(), f(), f(), f()]
    assert total_cost(patched, values) == 2 * 8 + 50 + 3


def test_plain_numbers_are_known_values() -> None:
    values = infer(
        graph(
            read(),
            Node("size", (NodeRef(0), 1)),
            Node("sub", (NodeRef(1), 2)),
            Node("getitem", (NodeRef(0), (ALL, SliceArg(NodeRef(2), None)))),
            Node("save", (NodeRef(2),), name="n"),
        ),
        LLAMA,
    )
    assert values[1:] == [17, 15, f(1, 2, 8), f(dtype="int64")]


def test_keyword_arguments_and_tuples_of_nodes_are_resolved() -> None:
    joined = Node("cat", ((NodeRef(0), NodeRef(0)),), (("dim", -1),))
    assert last(read(), joined) == f(1, 17, 16)
    assert last(read(), Node("chunk", (NodeRef(0), 2), (("dim", 2),)), Node("getitem", (NodeRef(1), 1))) == f(1, 17, 4)


def test_constants_have_the_shape_they_are_given() -> None:
    added = graph(read(), Node("add", (NodeRef(0), TensorRef("d" * 64))))
    assert infer(added, LLAMA, {"d" * 64: f(8)})[1] == f(1, 17, 8)
    with pytest.raises(ShapeError, match=r"node 1 \(add\): the shape of constant dddddddddddd… is not known"):
        infer(added, LLAMA)


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (0.0, ()),
        (NodeRef(0), ()),
        (NodeRef(1), ()),
        (NodeRef(1), (ALL, 3)),
        (NodeRef(1), (..., SliceArg(0, 8))),
        (NodeRef(2), (0, (1, 2, 3))),
        (0.0, (..., -1)),
        (1, (0, -17)),
    ],
)
def test_a_write_takes_what_broadcasts_to_its_view(value: Any, index: tuple[Any, ...]) -> None:
    sources = (read(), Node("getitem", (NodeRef(0), (0, 0))), Node("getitem", (NodeRef(0), (0, SliceArg(0, 3)))))
    assert last(*sources, write(value, *index)) is None


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (write(NodeRef(0)), "node 1 (write): a value of shape [1, 5, 8] does not fit a view of shape [1, 17, 8]"),
        (write(NodeRef(0), ALL, 3), "node 1 (write): a value of shape [1, 5, 8] does not fit a view of shape [1, 8]"),
        (write(0.0, ALL, 20), "node 1 (write): position 20 is outside the 17 tokens of run 'clean'"),
        (write(0.0, ALL, (3, -18)), "node 1 (write): position -18 is outside the 17 tokens of run 'clean'"),
        (write(0.0, ALL, ALL, 8), "node 1 (write): index 8 is outside axis 2 of length 8"),
        (write(0.0, 0, 0, 0, 0), "node 1 (write): 4 indices are too many for the 3 dimensions of [1, 17, 8]"),
        (write("text"), "node 1 (write): argument 'value' must be a tensor, a number, or a tuple of these, got 'text'"),
    ],
)
def test_a_write_that_does_not_fit_is_named(node: Node, expected: str) -> None:
    assert message(read(run=CORRUPTED), node) == expected


def test_items_of_a_tuple_site_are_written_by_position() -> None:
    site = "transformer.h.1.output"
    assert last(write(0.0, 0, ALL, 3, site=site), sites=GPT2) is None
    assert last(read(site), write(NodeRef(0), site=site), sites=GPT2) is None
    assert message(write(0.0, 1, site=site), sites=GPT2) == "node 0 (write): item 1 is outside a tuple of 1"
    assert message(write(0.0, site=site), sites=GPT2).endswith("write to one item of it, or a tuple as long")
    expected = "node 0 (write): position 17 is outside the 17 tokens of run 'clean'"
    assert message(write(0.0, 0, ALL, 17, site=site), sites=GPT2) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(ALL, 20)], "node 1 (getitem): position 20 is outside the 17 tokens of run 'clean'"),
        ([0, -18], "node 2 (getitem): position -18 is outside the 17 tokens of run 'clean'"),
        ([(..., None), (0, 17)], "node 2 (getitem): position 17 is outside the 17 tokens of run 'clean'"),
        ([(ALL, (1, 17))], "node 1 (getitem): position 17 is outside the 17 tokens of run 'clean'"),
        ([(ALL, ALL, 8)], "node 1 (getitem): index 8 is outside axis 2 of length 8"),
        ([(ALL, SliceArg(5)), (0, 12)], "node 2 (getitem): index 12 is outside axis 1 of length 12"),
    ],
)
def test_a_position_outside_the_prompt_names_position_length_and_run(steps: list[Any], expected: str) -> None:
    chain = [Node("getitem", (NodeRef(i), index)) for i, index in enumerate(steps)]
    assert message(read(), *chain) == expected


def test_a_position_outside_an_item_of_a_tuple_site_names_the_run() -> None:
    picked = Node("getitem", (NodeRef(0), 0))
    outside = Node("getitem", (NodeRef(1), (0, 40)))
    expected = "node 2 (getitem): position 40 is outside the 17 tokens of run 'clean'"
    assert message(read("transformer.h.0.output"), picked, outside, sites=GPT2) == expected


def test_a_position_that_a_node_computes_is_checked() -> None:
    nodes = (read(), Node("size", (NodeRef(0), 1)), Node("getitem", (NodeRef(0), (0, NodeRef(1)))))
    assert message(*nodes) == "node 2 (getitem): position 17 is outside the 17 tokens of run 'clean'"


@pytest.mark.parametrize(
    ("module", "value", "expected"),
    [
        ("model.norm", NodeRef(0), f(1, 17, 8)),
        ("lm_head", NodeRef(0), f(1, 17, 50)),
        ("lm_head", NodeRef(1), f(50)),
        ("model.layers.0.mlp.gate_proj", NodeRef(1), f(32)),
        ("model.embed_tokens", NodeRef(2), f(3, 8)),
    ],
)
def test_a_called_module_keeps_leading_axes_and_gives_its_own_last(module: str, value: Any, expected: Any) -> None:
    sources = (read(), Node("getitem", (NodeRef(0), (0, 3))), Node("arange", (3,)))
    assert last(*sources, Node("call", (value,), site=module)) == expected


@pytest.mark.parametrize(
    ("module", "value", "expected"),
    [
        ("lm_head", NodeRef(1), "the module takes values with last axis 8, not [1, 17]"),
        ("lm_head", NodeRef(2), "the module takes float32, not int64; cast it"),
        ("lm_head", NodeRef(3), "the module takes values with last axis 8, not []"),
        ("model.layers.0.self_attn", NodeRef(0), "call needs a module that takes one tensor and gives one"),
        ("lm_head", 2.0, "argument 'input' must be a tensor, got 2.0"),
    ],
)
def test_a_call_that_does_not_fit_is_named(module: str, value: Any, expected: str) -> None:
    sources = (
        read(),
        Node("getitem", (NodeRef(0), (..., 0))),
        Node("cast", (NodeRef(0), "int64")),
        Node("sum", (NodeRef(0),)),
    )
    assert message(*sources, Node("call", (value,), site=module)) == f"node 4 (call): {expected}"


def test_weights_have_their_shape() -> None:
    assert last(Node("weight", site="lm_head.weight")) == f(50, 8)


def test_a_gradient_is_like_its_read() -> None:
    nodes = (read(), read("lm_head.output"), Node("sum", (NodeRef(1),)), Node("backward", (NodeRef(2),)))
    assert last(*nodes, Node("grad", (NodeRef(0), NodeRef(3)))) == f(1, 17, 8)
    expected = "node 1 (backward): backward needs one floating-point number, not float32[1, 17, 8]"
    assert message(read(), Node("backward", (NodeRef(0),))) == expected


def test_control_nodes_have_no_value() -> None:
    skip = Node("skip", (NodeRef(0),), run=CLEAN, site="model.layers.0")
    assert infer(graph(read(), skip, Node("stop", run=CLEAN), Node("steps", (3,), run=CLEAN)), LLAMA)[1:] == [None] * 3
    assert "at least one step" in message(Node("steps", (0,), run=CLEAN))
    assert "does not fit" in message(read("lm_head.output"), skip)


def test_saves_are_tensors_or_numbers() -> None:
    assert last(Node("save", (2,), name="n")) == f(dtype="int64")
    assert last(Node("save", (True,), name="n")) == f(dtype="bool")
    top = (read(), Node("topk", (NodeRef(0), 2)))
    assert "only tensors and numbers can be saved" in message(*top, Node("save", (NodeRef(1),), name="n"))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (read("model.layers.9.output"), "node 1 (read): the model has no site 'model.layers.9.output'"),
        (Node("weight", site="lm_head.bias"), "node 1 (weight): the model has no weight 'lm_head.bias'"),
        (Node("call", (NodeRef(0),), site="lm_heads"), "node 1 (call): the model has no module 'lm_heads'"),
        (Node("skip", (0.0,), run=0, site="model.norms"), "node 1 (skip): the model has no module 'model.norms'"),
        (read("model.rotary_emb.output"), "node 1 (read): site 'model.rotary_emb.output' cannot be used"),
    ],
)
def test_what_the_model_does_not_have_is_a_model_error(node: Node, expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        infer(graph(read(), node), LLAMA)
    assert str(caught.value).startswith(expected)


def test_masks_that_select_are_refused_with_what_to_use() -> None:
    mask = Node("gt", (NodeRef(0), 0.0))
    assert "hint: use where" in message(read(), mask, Node("getitem", (NodeRef(0), NodeRef(1))))


def test_a_prompt_must_be_tokens() -> None:
    with pytest.raises(ShapeError, match="prompt of run 'clean' is not given as token ids"):
        infer(Graph({}, (Run("clean", "text"),), (read(),)), LLAMA)


def test_cost_counts_products() -> None:
    product = graph(
        read(),
        Node("transpose", (NodeRef(0), 1, 2)),
        Node("matmul", (NodeRef(0), NodeRef(1))),
        Node("call", (NodeRef(0),), site="lm_head"),
    )
    assert total_cost(product, infer(product, LLAMA)) == 2 * 17 * 17 * 8 + 2 * 17 * 8 * 50


def test_inference_is_quick_enough_for_thousands_of_tasks() -> None:
    nodes = [read(), *(Node("getitem", (NodeRef(0), (ALL, i % 17))) for i in range(500))]
    nodes += [Node("sub", (NodeRef(1 + i), NodeRef(2 + i))) for i in range(498)]
    many = graph(*nodes)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        infer(many, LLAMA)
        seconds.append(time.process_time() - start)
    assert min(seconds) / len(nodes) < 50e-6
