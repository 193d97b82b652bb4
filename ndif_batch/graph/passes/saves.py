"""Keeps some of what a graph saves."""

from __future__ import annotations

from collections.abc import Collection

from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.passes.renumber import renumber

SAVE = "save"


def only_saves(graph: Graph, names: Collection[str]) -> Graph:
    """The graph without its saves of other ``names``; what was computed for them stays, and is dead."""
    kept = [i for i, node in enumerate(graph.nodes) if node.op != SAVE or node.name in names]
    return renumber(graph, kept, {i: i for i in kept})
