"""When each node can be computed.

A node's time is ``(stage, order)``: the pass, and the place in that pass, at which its value is known. A value that
is needed earlier in the model than it was read waits for the next pass; that is all there is to stages.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, TypeAlias

from ndif_batch.engine.takes import TAKE
from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Graph, Node, NodeRef, inputs
from ndif_batch.graph.sites import SiteMap

Time: TypeAlias = tuple[int, int]
BEFORE: Time = (0, -1)
"""The time of what needs no run: constants and weights."""
AFTER: Final = sys.maxsize
"""The place in a pass that comes after all of its sites: that of gradients."""
TARGET: Final = "target"
END: Final = AFTER - 1
"""The place in a pass at which the model's logits are there."""
CHOOSE: Final = "choose"
"""The node that chooses a token from the logits of a run."""
JOINED: Final = "joined"
"""The node that joins what the steps of a generation have given."""


def order_of(node: Node, sites: SiteMap) -> int:
    """Where in a pass a node that touches a site happens."""
    if node.op == CHOOSE:
        return END
    assert node.site is not None
    return sites.site(node.site).order


def reads(node: Node) -> bool:
    """Whether a node looks at a run."""
    return node.op in ("read", TAKE, CHOOSE)


def before(graph: Graph, run: int | None) -> int | None:
    """The node that chooses the token which a run begins with; ``None`` for a run of a prompt."""
    prompt = None if run is None else graph.runs[run].prompt
    return prompt.node if isinstance(prompt, NodeRef) else None


def times(graph: Graph, origin: tuple[int, ...], sites: SiteMap, *, together: bool) -> list[Time]:
    """The time of each node. ``GraphError`` names the nodes of a cycle.

    Where gradients are taken, runs that are only read come one pass before: nothing of them is kept for a way back.
    """
    known: dict[int, Time] = {}
    plain = _only_read(graph)
    needed = [needs(graph, sites, i) for i in range(len(graph.nodes))]
    for start in range(len(graph.nodes)):
        path = [start]
        while path:
            node = path[-1]
            missing = next((other for other in needed[node] if other not in known), None)
            if missing is None:
                stage, order = _time(graph, sites, node, needed[node], known, together)
                run = graph.nodes[node].run if graph.nodes[node].site is not None else None
                known[node] = max(stage, int(bool(plain) and run is not None and run not in plain)), order
                path.pop()
            elif missing in path:
                raise _cycle(graph, origin, path[path.index(missing) :])
            else:
                path.append(missing)
    return [known[i] for i in range(len(graph.nodes))]


def _only_read(graph: Graph) -> frozenset[int | None]:
    """Of a graph with gradients the runs that are only read."""
    changed = {node.run for node in graph.nodes if node.op in ("write", TARGET)}
    differentiated = any(node.op == TARGET for node in graph.nodes)
    return frozenset(node.run for node in graph.nodes if differentiated and reads(node) and node.run not in changed)


def _cycle(graph: Graph, origin: tuple[int, ...], nodes: list[int]) -> GraphError:
    story = " needs ".join(f"node {origin[i]} ({graph.nodes[i].op} {graph.nodes[i].site or ''})" for i in nodes)
    return GraphError(
        f"what is written depends on itself: {story} needs node {origin[nodes[0]]}",
        rule="cycle",
        node=origin[nodes[0]],
        hint="use a second run of the same prompt for the value that is read",
    )


def needs(graph: Graph, sites: SiteMap, i: int) -> list[int]:
    """Nodes that come before node ``i``: those whose values it takes, and for a read the writes that show in it."""
    node = graph.nodes[i]
    needed = list(inputs(node))
    if reads(node) or node.op == TARGET:
        here = order_of(node, sites)
        chosen = before(graph, node.run)
        needed += [] if chosen is None else [chosen]
        for j, other in enumerate(graph.nodes):
            if other.op == "write" and other.run == node.run:
                there = order_of(other, sites)
                if there < here or (there == here and j < i):
                    needed.append(j)
    return needed


def _time(graph: Graph, sites: SiteMap, i: int, needs: list[int], known: Mapping[int, Time], together: bool) -> Time:
    node = graph.nodes[i]
    if reads(node) or node.op == TARGET:
        chosen = before(graph, node.run)
        begins = 0 if chosen is None else known[chosen][0] + 1
        return max([begins, *(known[j][0] for j in needs)]), order_of(node, sites)
    stage, order = max((known[j] for j in needs), default=BEFORE)
    if node.op == "backward":
        return stage, AFTER
    if node.op != "write":
        return stage, order
    here = order_of(node, sites)
    late = order > here or (not together and _foreign(graph, i, stage, known))
    return stage + late, here


def _foreign(graph: Graph, write: int, stage: int, known: Mapping[int, Time]) -> bool:
    """Whether what a write takes comes from another run of the pass ``stage``."""
    stack = list(inputs(graph.nodes[write]))
    seen: set[int] = set()
    while stack:
        j = stack.pop()
        node = graph.nodes[j]
        if reads(node) and node.run != graph.nodes[write].run and known[j][0] == stage:
            return True
        if j not in seen and not reads(node):
            seen.add(j)
            stack.extend(inputs(node))
    return False
