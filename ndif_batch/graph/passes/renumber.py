"""Keeps some of a graph's nodes and lets their arguments follow: how every pass rebuilds its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ndif_batch.graph.nodes import Arg, Graph, NodeRef, map_node


def renumber(graph: Graph, kept: Sequence[int], stands_for: Mapping[int, int]) -> Graph:
    """``graph`` with only the nodes ``kept`` (ascending); an argument ``n`` becomes what ``stands_for[n]`` is now."""
    place = {old: new for new, old in enumerate(kept)}

    def leaf(arg: Arg) -> Arg:
        return NodeRef(place[stands_for[arg.node]]) if isinstance(arg, NodeRef) else arg

    return replace(graph, nodes=tuple(map_node(graph.nodes[old], leaf) for old in kept))
