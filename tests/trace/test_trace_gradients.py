"""Gradients are recorded as in nnsight: ``metric.backward()``, then ``.grad`` of what was read at a site."""

from __future__ import annotations

from ndif_batch.graph.nodes import Node, NodeRef, SliceArg
from ndif_batch.trace import LanguageModel

ALL = SliceArg()


def test_a_backward_and_a_grad_become_nodes(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        residual = lm.model.layers[1].output
        lm.lm_head.output[0, -1, 7].backward()
        residual.grad.save("gradient")
    assert t.graph.nodes == (
        Node("read", run=0, site="model.layers.1.output"),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(1), (0, -1, 7))),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(0), NodeRef(3))),
        Node("save", (NodeRef(4),), name="gradient"),
    )


def test_the_with_form_records_the_same(lm: LanguageModel) -> None:
    def statement() -> None:
        lm.lm_head.output.sum().backward()
        residual.grad.save("gradient")

    def block() -> None:
        with lm.lm_head.output.sum().backward(retain_graph=True):
            residual.grad.save("gradient")

    graphs = []
    for form in (statement, block):
        with lm.trace([1, 2, 3]) as t:
            residual = lm.model.layers[1].output.requires_grad_()
            form()
        graphs.append(t.graph)
    assert graphs[0] == graphs[1]


def test_the_gradient_of_a_view_is_that_view_of_the_gradient(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        view = lm.model.layers[1].output[0, -1]
        lm.lm_head.output.sum().backward()
        view.grad.save("gradient")
    assert t.graph.nodes[-2:] == (
        Node("getitem", (NodeRef(4), (0, -1))),
        Node("save", (NodeRef(5),), name="gradient"),
    )
    assert t.scan()["gradient"].shape == (8,)


def test_a_gradient_of_an_item_of_a_tuple_is_that_item(tuples: LanguageModel) -> None:
    with tuples.trace([1, 2, 3]) as t:
        residual = tuples.transformer.h[0].output[0]
        tuples.lm_head.output.sum().backward()
        residual.grad.save("gradient")
    grad = next(i for i, node in enumerate(t.graph.nodes) if node.op == "grad")
    assert t.graph.nodes[grad + 1] == Node("getitem", (NodeRef(grad), (0,)))


def test_a_grad_is_of_the_latest_backward_and_recorded_once(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        residual = lm.model.layers[1].output
        logits = lm.lm_head.output[0, -1]
        for answer in (3, 4):
            logits[answer].backward()
            (residual.grad + residual.grad).save(f"gradient{answer}")
    grads = [node for node in t.graph.nodes if node.op == "grad"]
    backwards = [i for i, node in enumerate(t.graph.nodes) if node.op == "backward"]
    assert [node.args[1] for node in grads] == [NodeRef(i) for i in backwards]
    assert len(backwards) == 2


def test_after_a_write_the_gradient_is_by_what_was_written(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        residual = lm.model.layers[1].output
        residual[:, 0] = 0
        lm.lm_head.output.sum().backward()
        residual.grad.save("gradient")
    ops = [node.op for node in t.graph.nodes]
    assert ops == ["write", "read", "sum", "backward", "read", "grad", "save"]
