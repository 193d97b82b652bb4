"""Views, copies and in-place changes mean what they mean in torch: programs on tensors and their recordings agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ndif_batch.engine.kernels import KERNELS
from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, SliceArg
from ndif_batch.trace import LanguageModel, param
from tests.site_maps import info, llama

LM = LanguageModel(info(llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50)))
TOKENS = 5
ALL = SliceArg()


def start() -> Tensor:
    return torch.arange(TOKENS * 8.0).reshape(1, TOKENS, 8)


class Evaluation:
    """A graph of one run, carried out in program order on values of its sites."""

    def __init__(self, graph: Graph, sites: dict[str, Any]) -> None:
        self.sites = sites
        self.values: list[Any] = []
        self.saves: dict[str, Tensor] = {}
        for node in graph.nodes:
            self.values.append(self.value(node))

    def value(self, node: Node) -> Any:
        args = [self.resolved(arg) for arg in node.args]
        site = str(node.site)
        if node.op == "read":
            return cloned(self.sites[site])
        if node.op == "write":
            index = None if node.index is None else self.resolved(node.index)
            self.sites[site] = written(self.sites[site], index, args[0])
            return None
        if node.op == "save":
            self.saves[str(node.name)] = args[0]
            return None
        return KERNELS[node.op](*args, **{name: self.resolved(arg) for name, arg in node.kwargs})

    def resolved(self, arg: Arg) -> Any:
        if isinstance(arg, NodeRef):
            return self.values[arg.node]
        if isinstance(arg, SliceArg):
            return slice(self.resolved(arg.start), self.resolved(arg.stop), self.resolved(arg.step))
        return tuple(self.resolved(item) for item in arg) if isinstance(arg, tuple) else arg


def cloned(value: Any) -> Any:
    return (value[0].clone(), None) if isinstance(value, tuple) else value.clone()


def written(value: Any, index: tuple[Any, ...] | None, new: Any) -> Any:
    if isinstance(value, tuple):
        assert index is not None
        assert index[0] == 0
        return (written(value[0], index[1:] or None, new), None)
    value = value.clone()
    value[... if index is None else tuple(list(i) if isinstance(i, tuple) else i for i in index)] = new
    return value


class Program:
    """The same steps on torch tensors and on recorded values. A step that cannot be recorded is done on neither."""

    def __init__(self, module: Any, data: st.DataObject, is_tuple: bool) -> None:
        self.module, self.data, self.is_tuple = module, data, is_tuple
        self.real = SimpleNamespace(output=(start(), None) if is_tuple else start())
        self.pool: list[tuple[Tensor, Any]] = []
        self.look()

    def look(self) -> None:
        real, mine = self.real.output, self.module.output
        self.pool.append((real[0], mine[0]) if self.is_tuple else (real, mine))

    def step(self) -> None:
        name = self.data.draw(st.sampled_from(["look", "view", "copy", "assign", "add", "multiply", "derive", "clone"]))
        if name == "look":
            self.look()
            return
        real, mine = self.data.draw(st.sampled_from(self.pool))
        other, its = self.data.draw(st.sampled_from(self.pool))
        if name == "view":
            index = self.index(real)
            self.pool.append((real[index], mine[index]))
        elif name == "copy" and real.ndim and len(real):
            self.pool.append((real[[0, -1]], mine[[0, -1]]))
        elif name == "assign":
            index = self.index(real)
            try:
                mine[index] = its.sum()
            except TraceError:
                return
            real[index] = other.sum()
        elif name in ("add", "multiply"):
            try:
                mine = mine.__iadd__(its.sum()) if name == "add" else mine.__imul__(0.5)
            except TraceError:
                return
            real.add_(other.sum()) if name == "add" else real.mul_(0.5)
        elif name == "derive":
            self.pool.append((real * 2 + other.sum(), mine * 2 + its.sum()))
        elif name == "clone":
            self.pool.append((real.clone(), mine.clone()))

    def index(self, tensor: Tensor) -> Any:
        """A basic index that fits the tensor."""
        items: list[Any] = []
        for length in tensor.shape[: self.data.draw(st.integers(0, tensor.ndim))]:
            position = st.integers(-length, length - 1) if length else st.just(slice(None))
            items.append(self.data.draw(position | st.sampled_from([slice(None), slice(1, None), slice(0, None, 2)])))
        if self.data.draw(st.booleans()):
            items.append(...)
        return items[0] if len(items) == 1 else tuple(items)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), is_tuple=st.booleans())
def test_a_program_of_views_and_changes_does_what_torch_does(data: st.DataObject, is_tuple: bool) -> None:
    with LM.trace([1] * TOKENS) as t:
        block = LM.model.layers[1]
        program = Program(block.self_attn if is_tuple else block, data, is_tuple)
        for _ in range(data.draw(st.integers(1, 8))):
            program.step()
        for i, (_, mine) in enumerate(program.pool):
            mine.save(f"v{i}")
    site = "model.layers.1.self_attn.output" if is_tuple else "model.layers.1.output"
    done = Evaluation(t.graph, {site: (start(), None) if is_tuple else start()})
    for i, (real, _) in enumerate(program.pool):
        assert torch.equal(done.saves[f"v{i}"], real)
    ours, real = done.sites[site], program.real.output
    assert torch.equal(ours[0], real[0]) if is_tuple else torch.equal(ours, real)


def write_nodes(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "write"]


def test_an_augmented_assignment_to_a_site_writes_once() -> None:
    with LM.trace([1, 2, 3]) as t:
        h = LM.model.layers[0]
        h.output += 1
        h.output[:, 1] *= 2
        h.output[:, [0, 2]] -= 3
        h.residual[0] /= 4
        LM.lm_head.output.save("logits")
    assert [node.index for node in write_nodes(t.graph)] == [None, (ALL, 1), (ALL, (0, 2)), (0,)]


def test_nested_positions_become_one_index_that_the_engine_can_see() -> None:
    with LM.trace(param("prompt")) as t:
        LM.model.layers[0].output[0][param("position")][2:] = 0.0
        LM.model.layers[0].output[0][-1].save("last")
    assert [node.index for node in write_nodes(t.graph)] == [(0, t.graph.nodes[0].index[1], SliceArg(2))]  # type: ignore[index]
    assert t.graph.nodes[2].args[1] == (0, -1)


def test_a_replaced_site_leaves_what_was_read_before_as_it_was() -> None:
    with LM.trace([1] * TOKENS) as t:
        block = LM.model.layers[1]
        before = block.output
        block.output = before * 2
        (block.output - before).save("difference")
    done = Evaluation(t.graph, {"model.layers.1.output": start()})
    assert torch.equal(done.saves["difference"], start())


def test_a_stale_view_keeps_its_value_when_the_site_is_replaced() -> None:
    with LM.trace([1] * TOKENS) as t:
        block = LM.model.layers[1]
        before = block.output
        before[:, 0] = 7.0
        block.output = before * 0
        before[0, 0].save("written")
    done = Evaluation(t.graph, {"model.layers.1.output": start()})
    assert torch.equal(done.saves["written"], torch.full((8,), 7.0))


def test_writing_through_a_view_from_before_a_replacement_is_refused() -> None:
    with pytest.raises(TraceError, match="read before the site was replaced"), LM.trace([1, 2]):  # noqa: PT012
        before = LM.model.layers[1].output
        LM.model.layers[1].output = before * 2
        before[:, 0] = 0.0


def test_a_write_to_any_layer_makes_a_fixed_layer_be_read_again() -> None:
    with LM.trace([1, 2]) as t:
        fixed = LM.model.layers[1].output
        fixed.sum().save("before")
        LM.model.layers[param("layer")].output[:, 0] = 0.0
        fixed.sum().save("after")
        LM.model.layers[2].mlp.output.sum().save("elsewhere")
    assert [node.site for node in t.graph.nodes if node.op == "read"] == [
        "model.layers.1.output",
        "model.layers.1.output",
        "model.layers.2.mlp.output",
    ]


def test_a_write_in_one_run_does_not_make_another_be_read_again() -> None:
    with LM.trace() as t:
        with t.invoke([1, 2]):
            clean = LM.model.layers[1].output
            clean.sum().save("a")
        with t.invoke([3, 4]):
            LM.model.layers[1].output[:] = clean
            clean.mean().save("b")
    assert [node.run for node in t.graph.nodes if node.op == "read"] == [0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h[:, [0, 1]].__setitem__(0, 1.0), "makes a copy"),
        (lambda h: h[:, torch.tensor([0, 1])].__setitem__(0, 1.0), "makes a copy"),
        (lambda h: h[h[0, :, 0].argmax()].__setitem__(0, 1.0), "makes a copy"),
        (lambda h: h.view(1, -1, 2, 4).__setitem__((0, 0), 1.0), "`view` is another value"),
        (lambda h: h.transpose(1, 2).zero_(), "`transpose` is another value"),
        (lambda h: h.float().__iadd__(1), "`cast` is another value"),
    ],
)
def test_an_assignment_that_would_be_lost_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as caught, LM.trace([1, 2]):
        change(LM.model.norm.output)
    assert "assign to the site itself" in str(caught.value)


def test_a_clone_can_be_changed_without_writing_the_site() -> None:
    with LM.trace([1] * TOKENS) as t:
        copy = LM.model.layers[1].output.clone()
        copy[:, 0] = 1.0
        copy.mul_(3)
        copy.save("copy")
        LM.model.layers[1].output.save("site")
    done = Evaluation(t.graph, {"model.layers.1.output": start()})
    expected = start()
    expected[:, 0] = 1.0
    assert torch.equal(done.saves["copy"], expected * 3)
    assert torch.equal(done.saves["site"], start())
    assert write_nodes(t.graph) == []


def test_methods_that_change_in_place_write_the_site() -> None:
    with LM.trace([1] * TOKENS) as t:
        h = LM.model.layers[1].output
        h[:, 0].zero_()
        h[:, 1].fill_(2.0)
        h[:, 2].copy_(h[:, 3])
        h[:, 4].clamp_(min=35.0)
        h.save("h")
    done = Evaluation(t.graph, {"model.layers.1.output": start()})
    expected = start()
    expected[:, 0], expected[:, 1], expected[:, 2] = 0.0, 2.0, expected[:, 3].clone()
    expected[:, 4].clamp_(min=35.0)
    assert torch.equal(done.saves["h"], expected)
