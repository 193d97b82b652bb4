"""A model by its name, to trace experiments on: they run in this process or are submitted as jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ndif_batch import trace
from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.axes import POINT_AXIS
from ndif_batch.sweep.space import Axis, Space

if TYPE_CHECKING:
    from ndif_batch.client.client import Client
    from ndif_batch.client.handle import JobHandle


class LanguageModel(trace.LanguageModel):
    """The model called ``name`` among the queue's; no weights are loaded to trace, scan or submit."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        from ndif_batch.client.client import Client

        client = client or Client()
        super().__init__(client.model_info(name), _ThroughClient(client))


class _ThroughClient:
    """Carries out recorded experiments: :class:`ndif_batch.trace.backend.Backend`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(
        self,
        info: ModelInfo,
        graph: Graph,
        bindings: Mapping[str, Value],
        *,
        seed: int,
        constants: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """One task in this process."""
        return self._client.run(graph, bindings, info, seed=seed, constants=constants)

    def submit(
        self,
        info: ModelInfo,
        graph: Graph,
        *,
        grid: Mapping[str, Sequence[Value]],
        zip: Mapping[str, Sequence[Value]],  # noqa: A002 -- the caller's word for parameters that vary together
        bindings: Mapping[str, Value],
        constants: Mapping[str, Any],
        **options: Any,
    ) -> JobHandle:
        """A job over the grid; the parameters of ``zip`` share one axis, the last."""
        axes = [Axis(name, {name: values}) for name, values in grid.items()]
        if zip:
            axes.append(Axis(POINT_AXIS, dict(zip)))
        reduce = options.pop("reduce", None)
        plan = self._client.prepare(graph, Space(tuple(axes), bindings), info, constants=constants, reduce=reduce)
        return self._client.submit(plan, **options)
