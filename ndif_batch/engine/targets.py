"""Where gradients are taken: each differentiated read has a target, at which what the site holds is noted.

A target is a node ``target`` that has the run and the site of a read. It comes before every read that sees the same
value, so that the gradient counts what a graph does with the value as well as what the model makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from ndif_batch.engine.schedule import TARGET, order_of, reads
from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, inputs, map_node
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.sites import SiteMap

GRAD = "grad"
BACKWARD = "backward"
RULE = "gradient"
Seen: TypeAlias = tuple[int | None, str | None, int]
"""What a read sees: run, site, and how many writes were made there before."""


def grads_with_targets(graph: Graph, origin: tuple[int, ...]) -> tuple[Graph, tuple[int, ...]]:
    """The graph with grads that take a target instead of a read, and the submitted id of each node.

    Reads that were there for their gradients alone are gone.
    """
    pairs = {i: _arguments(node) for i, node in enumerate(graph.nodes) if node.op == GRAD}
    if not pairs:
        return graph, origin
    seen = _seen(graph)
    wanted = {seen[read] for read, _ in pairs.values()}
    used = {j for node in graph.nodes if node.op != GRAD for j in inputs(node)}
    order: list[int | Seen] = []
    for i, node in enumerate(graph.nodes):
        if i in seen and seen[i] in wanted and seen[i] not in order:
            order.append(seen[i])
        if node.op != "read" or i in used:
            order.append(i)
    place = {one: new for new, one in enumerate(order)}
    of_target = {seen[read]: origin[read] for read, _ in reversed(list(pairs.values()))}

    def leaf(arg: Arg) -> Arg:
        return NodeRef(place[arg.node]) if isinstance(arg, NodeRef) else arg

    def rebuilt(one: int | Seen) -> Node:
        if not isinstance(one, int):
            return Node(TARGET, run=one[0], site=one[1])
        if one in pairs:
            read, backward = pairs[one]
            return Node(GRAD, (NodeRef(place[seen[read]]), NodeRef(place[backward])))
        return map_node(graph.nodes[one], leaf)

    nodes = tuple(rebuilt(one) for one in order)
    return replace(graph, nodes=nodes), tuple(origin[one] if isinstance(one, int) else of_target[one] for one in order)


def check_gradients(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> None:
    """``GraphError`` for a gradient that cannot be: of what does not depend on the site, or of another gradient."""
    for i, node in enumerate(graph.nodes):
        if node.op != GRAD:
            continue
        target, backward = inputs(node)
        scalar = next(inputs(graph.nodes[backward]), None)
        after = _changing(graph, sites, _showing(graph, sites, target))
        if scalar not in after:
            raise GraphError(
                f"the scalar of node {origin[backward]} does not depend on {graph.nodes[target].site!r}",
                rule=RULE,
                node=origin[i],
                hint="differentiate by a site that comes before what the scalar is made of",
            )
        if scalar in _changing(graph, sites, {j for j in after if graph.nodes[j].op == GRAD}):
            raise GraphError(
                "gradients of gradients are not supported",
                rule=RULE,
                node=origin[backward],
                hint=".detach() a gradient that is to count as a constant",
            )


def _arguments(node: Node) -> tuple[int, int]:
    bound = OPERATIONS[GRAD].arrange(node.args, node.kwargs)
    return bound["value"].node, bound["backward"].node


def _seen(graph: Graph) -> dict[int, Seen]:
    writes: dict[tuple[int | None, str | None], int] = {}
    found: dict[int, Seen] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "write":
            writes[node.run, node.site] = writes.get((node.run, node.site), 0) + 1
        elif node.op == "read":
            found[i] = (node.run, node.site, writes.get((node.run, node.site), 0))
    return found


def _showing(graph: Graph, sites: SiteMap, i: int) -> set[int]:
    """The reads in which what happens at node ``i``, a target or a write, can show."""
    node, here = graph.nodes[i], order_of(graph.nodes[i], sites)
    return {
        j
        for j, other in enumerate(graph.nodes)
        if reads(other)
        and other.run == node.run
        and ((there := order_of(other, sites)) > here or (there == here and j > i))
    }


def _changing(graph: Graph, sites: SiteMap, start: Iterable[int]) -> set[int]:
    """The nodes whose values change with those of some, these included, as far as gradients can tell."""
    users: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for j in inputs(node):
            users.setdefault(j, []).append(i)
    found: set[int] = set()
    waiting = list(start)
    while waiting:
        i = waiting.pop()
        if i in found or graph.nodes[i].op == "detach":
            continue
        found.add(i)
        waiting += _showing(graph, sites, i) if graph.nodes[i].op == "write" else users.get(i, ())
    return found
