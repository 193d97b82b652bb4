"""Drops the nodes that nothing saved or printed depends on."""

from __future__ import annotations

from ndif_batch.graph.nodes import Graph, inputs
from ndif_batch.graph.operations import OPERATIONS, Kind
from ndif_batch.graph.passes.renumber import renumber


def drop_dead(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    """The graph without its dead nodes, and the old id of each node that is left.

    Live is what is saved or printed, what a live node takes, and, once a live node reads from a run, everything that
    writes to that run or steers it. Runs stay, used or not, so that their numbers do.
    """
    changes: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.run is not None and node.op not in ("read", "tokens"):
            changes.setdefault(node.run, []).append(i)
    pending = [i for i, node in enumerate(graph.nodes) if OPERATIONS[node.op].kind is Kind.OUT]
    live: set[int] = set()
    while pending:
        i = pending.pop()
        if i in live:
            continue
        live.add(i)
        node = graph.nodes[i]
        pending += inputs(node)
        if node.run is not None:
            pending += changes.pop(node.run, ())
    kept = tuple(sorted(live))
    return renumber(graph, kept, {i: i for i in kept}), kept
