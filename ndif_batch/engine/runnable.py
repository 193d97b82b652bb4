"""What of the language this version can run; the rest is refused by name before anything is queued."""

from __future__ import annotations

from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Graph

NOT_YET: dict[str, str] = {}


def require_runnable(graph: Graph) -> None:
    """``GraphError`` if the graph has an operation that the schema knows but this version does not run."""
    for i, node in enumerate(graph.nodes):
        if node.op in NOT_YET:
            raise GraphError(
                f"this version does not run {NOT_YET[node.op]} ({node.op})", rule="not-in-this-version", node=i
            )
