"""An edit is one run's writes that come before those of each run of another graph."""

from __future__ import annotations

from dataclasses import replace

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, SliceArg, map_node
from ndif_batch.graph.steps import generations


def edited(graph: Graph, edit: Graph) -> tuple[Graph, tuple[int | None, ...]]:
    """``graph`` with the nodes of ``edit`` before its own in each run, and what each node was in ``graph``.

    That is ``None`` for those of the edit. In a run that generates an edit is made at every step.
    """
    going_on = generations(graph)
    nodes: list[Node] = []
    for run in range(len(graph.runs)):
        first = len(nodes)

        def moved(arg: Arg, first: int = first) -> Arg:
            return NodeRef(arg.node + first) if isinstance(arg, NodeRef) else arg

        steps = SliceArg() if run in going_on else None
        for node in edit.nodes:
            own = map_node(node, moved)
            nodes.append(own if node.run is None else replace(own, run=run, step=steps))
    before = len(nodes)

    def later(arg: Arg) -> Arg:
        return NodeRef(arg.node + before) if isinstance(arg, NodeRef) else arg

    nodes += [map_node(node, later) for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes)), (*[None] * before, *range(len(graph.nodes)))
