"""What carries out a recorded experiment: the client, or a stand-in for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.models.info import ModelInfo


class Backend(Protocol):
    """Runs a graph here and now, or submits it as a job.

    ``bindings`` may hold text for prompts and single tokens. ``constants`` are the graph's tensors by digest, each a
    torch tensor on the CPU or a numpy array.
    """

    def run(
        self,
        info: ModelInfo,
        graph: Graph,
        bindings: Mapping[str, Value],
        *,
        seed: int,
        constants: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """The saved values of one task, by name."""
        ...

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
    ) -> Any:
        """A handle of the new job: one axis for each parameter of ``grid``, one for all of ``zip`` together.

        ``bindings`` never vary; ``options`` are the submission's own (``name``, ``seed``, ``hold``, ``key``, …).
        """
        ...
