"""One task: a graph, what it binds to the graph's parameters, and its seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ndif_batch.graph.nodes import Graph, Value


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine runs. ``id`` is the task's place in its job; ``seed`` decides every random number in it."""

    graph: Graph
    bindings: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 0
    id: int = 0
