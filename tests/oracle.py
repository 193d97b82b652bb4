"""The meaning of a graph, as plainly as it can be written: one task, one run at a time, raw forward hooks.

Every run is one forward pass of the Hugging Face model over its own tokens. At each site the hooks do the run's reads
and writes in program order. Where a value of one run is needed in another, everything is run again until nothing
changes any more. There is no packing, no planning and no sharing: everything else is compared with this.

Gradients are autograd's, by what the site handed on when it was read. A run that was done over has handed on several
tensors that stand for the same value: the gradient by it is the sum of those by each.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import torch
from transformers import PreTrainedModel

from ndif_batch.engine.kernels import KERNELS
from ndif_batch.graph.nodes import Graph, Node, NodeRef, SliceArg, TensorRef, inputs
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.models.tokenizer import concrete
from ndif_batch.sweep.task import Task
from tests.families import Subject


class Unknown(Exception):  # noqa: N818  not an error
    """A value is not known yet; a later round will have it."""


class Oracle:
    """Runs one task on one model."""

    def __init__(self, model: PreTrainedModel, graph: Graph, seed: int, constants: Mapping[str, torch.Tensor]) -> None:
        self.model = model
        self.graph = graph
        self.seed = seed
        self.constants = constants
        self.reads: dict[int, Any] = {}
        self.handed_on: dict[int, list[Any]] = {}
        self.differentiates = any(node.op == "grad" for node in graph.nodes)
        self.applying = False

    def saves(self) -> dict[str, torch.Tensor]:
        """What the task saves."""
        for _ in range(len(self.graph.nodes) + 2):
            before = dict(self.reads)
            for run in range(len(self.graph.runs)):
                self.forward(run)
            if before.keys() == self.reads.keys() and all(same(before[i], self.reads[i]) for i in before):
                break
        else:
            raise AssertionError("the graph has no meaning: its runs never come to rest")
        saved = {}
        for node in self.graph.nodes:
            if node.op == "save":
                value = self.evaluate(node.args[0])
                tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                saved[str(node.name)] = tensor.detach().clone()
        return saved

    def forward(self, run: int) -> None:
        """One pass of one run, alone."""
        handles = []
        for path in {plain_site(node) for node in self.graph.nodes if node.run == run}:
            module = self.model.get_submodule(path.rpartition(".")[0])
            if path.endswith(".input"):
                handles.append(module.register_forward_pre_hook(self.pre_hook(run, path), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(self.hook(run, path)))
        try:
            with torch.set_grad_enabled(self.differentiates):
                ids = torch.tensor([self.graph.runs[run].prompt])
                self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()

    def pre_hook(self, run: int, path: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (self.at_site(run, path, args[0]), *args[1:]), kwargs
            first = next(iter(kwargs))
            return args, {**kwargs, first: self.at_site(run, path, kwargs[first])}

        return hook

    def hook(self, run: int, path: str) -> Any:
        return lambda module, args, output: self.at_site(run, path, output)

    def at_site(self, run: int, path: str, value: Any) -> Any:
        """The run's reads and writes at one site, in program order. A ``call`` of a module touches no site."""
        if self.applying:
            return value
        value = self.differentiable(value)
        for i, node in enumerate(self.graph.nodes):
            if node.run != run or plain_site(node) != path:
                continue
            if node.op == "read":
                self.reads[i] = copied(value)
                self.handed_on.setdefault(i, []).append(value)
            elif node.op in ("write", "skip"):
                try:
                    index = tuple(self.evaluate(part) for part in node.index or ())
                    value = self.differentiable(overwritten(value, index, self.evaluate(node.args[0])))
                except Unknown:
                    continue
        return copied(value) if self.differentiates else value  # some models change what a module gave

    def differentiable(self, value: Any) -> Any:
        """A copy that belongs to this site alone, by which can be differentiated."""
        if not self.differentiates:
            return value
        if isinstance(value, tuple | list):
            return type(value)(self.differentiable(item) for item in value)
        if not isinstance(value, torch.Tensor):
            return value
        value = value.clone()
        return value.requires_grad_() if value.is_floating_point() else value

    def gradient(self, read: int, backward: int) -> Any:
        """Of the scalar of a ``backward`` by what the site handed on at a ``read``."""
        scalar = self.evaluate(self.graph.nodes[backward].args[0])
        if read not in self.handed_on:
            raise Unknown
        if scalar.numel() != 1 or not scalar.is_floating_point():
            raise ValueError("backward needs one floating-point number")
        found = [self.derivative(scalar, value) for value in self.handed_on[read]]
        return found[0] if len(found) == 1 else summed(found)

    def derivative(self, scalar: torch.Tensor, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(self.derivative(scalar, item) for item in value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return None
        if not scalar.requires_grad:
            return torch.zeros_like(value)
        found = torch.autograd.grad(scalar.sum(), value, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(value) if found is None else found

    def evaluate(self, arg: Any) -> Any:
        """The value of an argument."""
        if isinstance(arg, NodeRef):
            return self.node_value(arg.node)
        if isinstance(arg, TensorRef):
            return self.constants[arg.digest]
        if isinstance(arg, SliceArg):
            return slice(self.evaluate(arg.start), self.evaluate(arg.stop), self.evaluate(arg.step))
        if isinstance(arg, tuple):
            return tuple(self.evaluate(item) for item in arg)
        return arg

    def node_value(self, i: int) -> Any:
        node = self.graph.nodes[i]
        if node.op == "read":
            if i not in self.reads:
                raise Unknown
            return self.reads[i]
        if node.op == "weight":
            return self.model.get_parameter(str(node.site)).detach()
        if node.op == "grad":
            return self.gradient(*inputs(node))
        args = [self.evaluate(arg) for arg in node.args]
        if node.op == "call":
            self.applying = True
            with torch.set_grad_enabled(self.differentiates):
                result = self.model.get_submodule(str(node.site))(*args)
            self.applying = False
            return result
        keywords = {name: self.evaluate(arg) for name, arg in node.kwargs}
        if OPERATIONS[node.op].random:
            seed = int.from_bytes(blake2b(f"{self.seed}/{i}".encode(), digest_size=7).digest())
            keywords["generator"] = torch.Generator().manual_seed(seed)
        return KERNELS[node.op](*args, **keywords)


def plain_site(node: Node) -> str:
    return f"{node.site}.output" if node.op == "skip" else str(node.site)


def overwritten(value: Any, index: tuple[Any, ...], new: Any) -> Any:
    if isinstance(value, tuple | list):
        if not index:
            return new
        items = list(value)
        items[index[0]] = overwritten(items[index[0]], index[1:], new)
        return type(value)(items)
    value = value.clone()
    value[index if index else ...] = new
    return value


def copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return tuple(copied(item) for item in value) if isinstance(value, tuple | list) else value


def summed(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(summed(list(items)) for items in zip(*values, strict=True))
    return None if values[0] is None else torch.stack(values).sum(0)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30))
    return all(same(x, y) for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else True


def oracle(
    subject: Subject, task: Task, constants: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """What ``task`` would save alone."""
    graph = concrete(task.graph, task.bindings, subject.loaded.tokenizer, subject.loaded.sites)
    return Oracle(subject.native, graph, task.seed, constants or {}).saves()


def assert_equal(name: str, ours: torch.Tensor, truth: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Equal shapes, dtypes, places of NaN and infinities; values within ``tolerance`` of the largest.

    Differences of equal values are rounding alone, so the largest counts as at least 1e-3.
    """
    assert ours.shape == truth.shape, f"{name}: shape {tuple(ours.shape)} is not {tuple(truth.shape)}"
    assert ours.dtype == truth.dtype, f"{name}: {ours.dtype} is not {truth.dtype}"
    if not truth.is_floating_point():
        assert torch.equal(ours, truth), f"{name}: values differ"
        return
    finite = torch.isfinite(truth)
    assert torch.equal(torch.isnan(ours), torch.isnan(truth)), f"{name}: NaN in other places"
    assert torch.equal(ours[~finite].nan_to_num(), truth[~finite].nan_to_num()), f"{name}: infinities differ"
    worst = deviation(ours, truth)
    assert worst <= tolerance, f"{name}: off by {worst:.2e} of the largest value"


def deviation(ours: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest difference as a share of the largest value, which counts as at least 1e-3."""
    finite = torch.isfinite(truth)
    if not truth.is_floating_point() or not finite.any():
        return 0.0
    scale = truth[finite].abs().max().clamp(min=1e-3)
    return float((ours[finite].double() - truth[finite].double()).abs().max() / scale)
