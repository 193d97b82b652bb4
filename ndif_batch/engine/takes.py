"""Reads of which only parts are used become takes of those parts: nothing else is gathered, or even computed.

A take is a node ``take`` that has the run and the site of a read and the index of a ``getitem``. It is done where the
read would be, so that later writes do not show in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ndif_batch.engine.indices import plain_parts
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, inputs, map_node
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue

TAKE = "take"


def reads_as_takes(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> tuple[Graph, tuple[int, ...]]:
    """The graph with takes, and the submitted id of each node: for a take, that of its ``getitem``."""
    users: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        for j in dict.fromkeys(inputs(node)):
            users.setdefault(j, []).append(i)
    taken: dict[int, Node] = {}
    gone: set[int] = set()
    for i, node in enumerate(graph.nodes):
        if node.op == "read" and node.run is not None:
            value = sites.site(str(node.site)).value
            found = list(_takes(graph, users, i, value, ()))
            if found and all(index is not None for _, index in found):
                taken |= {j: replace(node, op=TAKE, index=index) for j, index in found}
                gone |= _between(graph, users, i, set(taken))
    return _rebuilt(graph, origin, taken, gone) if taken else (graph, origin)


def _takes(
    graph: Graph, users: dict[int, list[int]], i: int, value: SiteValue, index: tuple[Arg, ...]
) -> Iterator[tuple[int, tuple[Arg, ...] | None]]:
    """Each ``getitem`` that takes a part of node ``i``, and the index of the part; ``None`` for a use of another kind.

    An item of a tuple of which all is used is a take of that item.
    """
    for j in users.get(i, ()):
        node = graph.nodes[j]
        own = _index(node, i)
        if isinstance(value, tuple) and own is not None and len(own) == 1 and _is_item(own[0], value):
            item = value[own[0]]  # type: ignore[index]
            deeper = list(_takes(graph, users, j, item, (*index, own[0])))
            whole = not deeper or any(inner is None for _, inner in deeper)
            if whole and not isinstance(item, SiteTensor):
                yield j, None
            elif whole:
                yield j, (*index, own[0])
            else:
                yield from deeper
        elif isinstance(value, SiteTensor) and len(value.token_axes) == 1 and own is not None:
            parts = plain_parts(own, len(value.shape), graph.params)
            yield j, None if parts is None else (*index, *parts)
        else:
            yield j, None


def _index(node: Node, i: int) -> tuple[Arg, ...] | None:
    if node.op != "getitem" or node.kwargs or len(node.args) != 2 or node.args[0] != NodeRef(i):
        return None
    return node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)


def _is_item(part: Arg, value: tuple[SiteValue, ...]) -> bool:
    return type(part) is int and -len(value) <= part < len(value)


def _between(graph: Graph, users: dict[int, list[int]], i: int, taken: set[int]) -> set[int]:
    """The read ``i`` and the items of its tuple that no longer have a user."""
    gone = {i}
    for j in users[i]:
        if j not in taken:
            gone |= _between(graph, users, j, taken)
    return gone


def _rebuilt(
    graph: Graph, origin: tuple[int, ...], taken: dict[int, Node], gone: set[int]
) -> tuple[Graph, tuple[int, ...]]:
    """Takes stand where their read stood; an argument that named a ``getitem`` names its take."""
    of_read: dict[int, list[int]] = {}
    for j in taken:
        of_read.setdefault(_read_of(graph, j), []).append(j)
    order: list[int] = []
    for i in range(len(graph.nodes)):
        if i in gone:
            order += sorted(of_read.get(i, ()))
        elif i not in taken:
            order.append(i)
    place = {old: new for new, old in enumerate(order)}

    def leaf(arg: Arg) -> Arg:
        return NodeRef(place[arg.node]) if isinstance(arg, NodeRef) else arg

    nodes = tuple(map_node(taken.get(old, graph.nodes[old]), leaf) for old in order)
    return replace(graph, nodes=nodes), tuple(origin[old] for old in order)


def _read_of(graph: Graph, j: int) -> int:
    while graph.nodes[j].op != "read":
        j = next(inputs(graph.nodes[j]))
    return j
