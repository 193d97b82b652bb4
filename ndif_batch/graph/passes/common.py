"""Merges nodes that are sure to have the same value."""

from __future__ import annotations

import json
from collections import Counter

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, map_node
from ndif_batch.graph.operations import OPERATIONS, Kind
from ndif_batch.graph.passes.renumber import renumber
from ndif_batch.graph.serialize import node_to_json


def merge_common(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    """The graph with each computation done once, and the old id of each node that is left.

    Two nodes merge if their operation has one value for one set of arguments, and these are the same; two reads only
    if nothing between them writes to their run or steers it. The first of them stays.
    """
    first: dict[str, int] = {}
    stands_for: dict[int, int] = {}
    changes: Counter[int] = Counter()

    def leaf(arg: Arg) -> Arg:
        return NodeRef(stands_for[arg.node]) if isinstance(arg, NodeRef) else arg

    for i, node in enumerate(graph.nodes):
        stands_for[i] = i
        if _is_repeatable(node):
            seen = 0 if node.run is None else changes[node.run]
            key = f"{seen} {json.dumps(node_to_json(map_node(node, leaf)), sort_keys=True)}"
            stands_for[i] = first.setdefault(key, i)
        elif node.run is not None:
            changes[node.run] += 1
    kept = tuple(i for i, same in stands_for.items() if i == same)
    return renumber(graph, kept, stands_for), kept


def _is_repeatable(node: Node) -> bool:
    """Whether the same node again, with nothing in between, has the same value."""
    if node.op in ("read", "weight", "call"):
        return True
    operation = OPERATIONS[node.op]
    return operation.kind is Kind.PURE and not operation.random
