"""The recorder of nnsight's blocks: shapes are known, and values are saved without names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from nnsight.tracing.tracer import save

from ndif_batch.graph.abstract import Abstract
from ndif_batch.graph.nodes import Arg, Graph, NodeRef, inputs, map_node
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace.arguments import Arguments
from ndif_batch.trace.look import look
from ndif_batch.trace.place import refusal
from ndif_batch.trace.proxy import Proxy
from ndif_batch.trace.recorder import Recorder
from ndif_batch.trace.tree import Tree


def _size(seen: Any) -> Callable[..., Any]:
    return lambda dim=None: torch.Size(seen.shape) if dim is None else seen.shape[dim]


class NNsightArguments(Arguments):
    """Knows the model's own weights, which are read in the graph."""

    def __init__(self, recorder: NNsightRecorder) -> None:
        super().__init__(recorder)
        self._own = recorder

    def convert(self, value: Any) -> Arg:
        """``value`` as an argument; ``TraceError`` for a tensor that has no values, as those of a model on meta."""
        if isinstance(value, torch.Tensor) and value.is_meta and id(value) not in self._own.weights:
            raise refusal("a tensor on the meta device has no values", hint="make it on hidden.device, or on the CPU")
        return super().convert(self._own.or_weight(value))


class NNsightRecorder(Recorder):
    """Prompts are known, so each value's shape and dtype are, too."""

    looked: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "shape": lambda seen: torch.Size(seen.shape),
        "dtype": lambda seen: getattr(torch, seen.dtype),
        "device": lambda seen: torch.device("cpu"),
        "ndim": lambda seen: len(seen.shape),
        "dim": lambda seen: lambda: len(seen.shape),
        "size": _size,
        "numel": lambda seen: lambda: seen.size,
    }

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(Tree(info.sites))
        self.info = info
        self.look = self._look
        self.kept: list[Proxy] = []
        self.weights: dict[int, str] = {}
        self.arguments = NNsightArguments(self)

    def save(self, value: Proxy, name: str | None, dims: Sequence[str] | None) -> None:
        """nnsight marks a value by identity, so one without a name must live as long as its mark."""
        if name is not None:
            super().save(value, name, dims)
            return
        value.current()
        self.kept.append(save(value))

    def know_weights(self, model: torch.nn.Module) -> None:
        """Learns which tensors are weights of the model."""
        named = model.named_parameters(remove_duplicate=False)
        self.weights = {id(weight): path for path, weight in named if path in self.tree.sites.weights}

    def or_weight(self, value: Any) -> Any:
        """``value``, or the read of the weight that it is."""
        path = self.weights.get(id(value)) if isinstance(value, torch.Tensor) else None
        return value if path is None else self.weight(path)

    @property
    def generates(self) -> bool:
        """Whether the open run generates."""
        return self.run in self._counts

    def steps_of(self, run: int) -> int:
        """How many passes a run takes, if it does not stop before."""
        return self._counts.get(run, 1)

    def _look(self, node: int) -> Abstract:
        wanted = {node} | {i for i, known in enumerate(self.nodes) if known.op == "steps"}
        for i in range(node, -1, -1):
            if i in wanted:
                wanted.update(inputs(self.nodes[i]))
        kept = sorted(wanted)
        new = {old: i for i, old in enumerate(kept)}
        nodes = tuple(
            map_node(self.nodes[i], lambda arg: NodeRef(new[arg.node]) if isinstance(arg, NodeRef) else arg)
            for i in kept
        )
        graph = Graph(params={}, runs=tuple(self.runs), nodes=nodes)
        return look(self.info, graph, [self.places[i] for i in kept], {}, self.constants)[new[node]]
