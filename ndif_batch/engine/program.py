"""One task made ready to run: when each node can be computed, and how far each run has to go.

A node's time is ``(stage, order)``: the pass, and the place in that pass, at which its value is known. A value that
is needed earlier in the model than it was read waits for the next pass; that is all there is to stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ndif_batch.engine.runnable import require_runnable
from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, SliceArg, inputs
from ndif_batch.graph.passes.common import merge_common
from ndif_batch.graph.passes.dead import drop_dead
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue

Time = tuple[int, int]
BEFORE: Time = (0, -1)
"""The time of what needs no run: constants and weights."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Do ``node`` when pass ``stage`` comes to the site at ``order``."""

    stage: int
    order: int
    node: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One run in one pass: how deep it goes, and whether the graph has changed it by then.

    ``positions`` are those that must go through the model's last module; ``None`` means all.
    """

    run: int
    stage: int
    depth: int
    changed: bool
    positions: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Program:
    """A concrete graph with its schedule. ``origin[i]`` is the submitted id of node ``i``.

    ``entries`` are in the order of execution; ``uses[i]`` says how often node ``i``'s value is asked for;
    ``reads`` maps a read of the last module to the positions that it is asked for.
    """

    graph: Graph
    origin: tuple[int, ...]
    entries: tuple[Entry, ...]
    visits: tuple[Visit, ...]
    uses: tuple[int, ...]
    reads: dict[int, tuple[int, ...]]

    @property
    def stages(self) -> int:
        """Number of passes."""
        return max((visit.stage for visit in self.visits), default=-1) + 1

    def tokens(self, run: int) -> tuple[int, ...]:
        """Token ids of a run."""
        prompt = self.graph.runs[run].prompt
        assert isinstance(prompt, tuple)
        return prompt


def optimise(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    """The graph without what is not needed or done twice, parameters still in it, and the submitted id of each node.

    ``GraphError`` if it has an operation that this version does not run.
    """
    require_runnable(graph)
    graph, first = drop_dead(_without_hints(graph))
    graph, second = merge_common(graph)
    return graph, tuple(first[i] for i in second)


def compile_task(graph: Graph, origin: tuple[int, ...], sites: SiteMap, *, together: bool = True) -> Program:
    """Makes a program of a concrete graph (see ``models.tokenizer.concrete``); ``origin`` is as in :class:`Program`.

    ``together`` says that all runs of a pass go side by side, so that one can use what another read at an earlier
    site of the same pass. ``GraphError`` names the nodes of a cycle; ``ModelError`` a site that does not exist.
    """
    reads: dict[int, tuple[int, ...]] = {}
    graph = _narrow_head_reads(graph, sites, reads)
    _check_writes(graph, origin, sites)
    times = _times(graph, sites, origin, together)
    visits = tuple(_visits(graph, sites, times, reads))
    if not together:
        times, visits = _one_run_a_pass(graph, times, visits)
    entries = sorted(_entries(graph, times, visits), key=lambda e: (e.stage, e.order, e.node))
    return Program(graph, origin, tuple(entries), visits, _uses(graph, entries), reads)


def _check_writes(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> None:
    """Ids and masks steer the model: overwritten with nonsense they would break the pass for every run in it."""
    for i, node in enumerate(graph.nodes):
        if node.op == "write" and not _holds_floats(_written(sites.site(str(node.site)).value, node.index or ())):
            raise GraphError(
                f"site {node.site!r} holds no activations, so it cannot be written",
                rule="site",
                node=origin[i],
                hint="for other tokens, give the run another prompt",
            )


def _written(value: SiteValue, index: tuple[Arg, ...]) -> SiteValue:
    """The part of a site's value that an index leads to: items of tuples come first."""
    if isinstance(value, tuple) and index and isinstance(index[0], int) and -len(value) <= index[0] < len(value):
        return _written(value[index[0]], index[1:])
    return value


def _holds_floats(value: SiteValue) -> bool:
    if isinstance(value, tuple):
        return all(_holds_floats(item) for item in value)
    return value is None or "float" in value.dtype


def order_of(node: Node, sites: SiteMap) -> int:
    """Where in a pass a read or a write happens."""
    assert node.site is not None
    return sites.site(node.site).order


def _without_hints(graph: Graph) -> Graph:
    """``skip`` is a write of the module's whole output; where a run can ``stop`` the planner finds by itself."""

    def plain(node: Node) -> Node:
        return replace(node, op="write", site=f"{node.site}.output") if node.op == "skip" else node

    return replace(graph, nodes=tuple(plain(node) for node in graph.nodes))


def _times(graph: Graph, sites: SiteMap, origin: tuple[int, ...], together: bool) -> list[Time]:
    times: dict[int, Time] = {}
    needs = [_needs(graph, sites, i) for i in range(len(graph.nodes))]
    for start in range(len(graph.nodes)):
        path = [start]
        while path:
            node = path[-1]
            missing = next((other for other in needs[node] if other not in times), None)
            if missing is None:
                times[node] = _time(graph, sites, node, needs[node], times, together)
                path.pop()
            elif missing in path:
                raise _cycle(graph, origin, path[path.index(missing) :])
            else:
                path.append(missing)
    return [times[i] for i in range(len(graph.nodes))]


def _cycle(graph: Graph, origin: tuple[int, ...], nodes: list[int]) -> GraphError:
    story = " needs ".join(f"node {origin[i]} ({graph.nodes[i].op} {graph.nodes[i].site or ''})" for i in nodes)
    return GraphError(
        f"what is written depends on itself: {story} needs node {origin[nodes[0]]}",
        rule="cycle",
        node=origin[nodes[0]],
        hint="use a second run of the same prompt for the value that is read",
    )


def _needs(graph: Graph, sites: SiteMap, i: int) -> list[int]:
    node = graph.nodes[i]
    needs = list(inputs(node))
    if node.op == "read":
        here = order_of(node, sites)
        for j, other in enumerate(graph.nodes):
            if other.op == "write" and other.run == node.run:
                there = order_of(other, sites)
                if there < here or (there == here and j < i):
                    needs.append(j)
    return needs


def _time(graph: Graph, sites: SiteMap, i: int, needs: list[int], times: Mapping[int, Time], together: bool) -> Time:
    node = graph.nodes[i]
    if node.op == "read":
        return max((times[j][0] for j in needs), default=0), order_of(node, sites)
    stage, order = max((times[j] for j in needs), default=BEFORE)
    if node.op != "write":
        return stage, order
    here = order_of(node, sites)
    late = order > here or (not together and _foreign(graph, i, stage, times))
    return stage + late, here


def _foreign(graph: Graph, write: int, stage: int, times: Mapping[int, Time]) -> bool:
    """Whether what a write takes comes from another run of the pass ``stage``."""
    stack = list(inputs(graph.nodes[write]))
    seen: set[int] = set()
    while stack:
        j = stack.pop()
        node = graph.nodes[j]
        if node.op == "read" and node.run != graph.nodes[write].run and times[j][0] == stage:
            return True
        if j not in seen and node.op != "read":
            seen.add(j)
            stack.extend(inputs(node))
    return False


def _visits(graph: Graph, sites: SiteMap, times: list[Time], reads: dict[int, tuple[int, ...]]) -> Iterator[Visit]:
    wanted: dict[tuple[int, int], list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "read" and node.run is not None:
            wanted.setdefault((times[i][0], node.run), []).append(i)
    for (stage, run), nodes in sorted(wanted.items()):
        depth = max(times[i][1] for i in nodes)
        changed = any(
            node.op == "write" and node.run == run and times[i][0] <= stage and times[i][1] <= depth
            for i, node in enumerate(graph.nodes)
        )
        yield Visit(run, stage, depth, changed, _positions(graph, sites, run, nodes, reads))


def _positions(
    graph: Graph, sites: SiteMap, run: int, nodes: list[int], reads: dict[int, tuple[int, ...]]
) -> tuple[int, ...] | None:
    head = _head_order(sites)
    if head is None:
        return None
    positions: set[int] = set()
    for i, node in enumerate(graph.nodes):
        at_head = node.run == run and node.op in ("read", "write") and order_of(node, sites) >= head
        if at_head and i in reads and i in nodes:
            positions.update(reads[i])
        elif at_head:
            return None
    return tuple(sorted(positions))


def _head_order(sites: SiteMap) -> int | None:
    entrance = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
    return None if entrance is None else entrance.order


def _one_run_a_pass(graph: Graph, times: list[Time], visits: tuple[Visit, ...]) -> tuple[list[Time], tuple[Visit, ...]]:
    """Gives each visit a pass of its own, in the same order."""
    passes = {(visit.stage, visit.run): n for n, visit in enumerate(visits)}
    new: list[Time] = []
    for i, node in enumerate(graph.nodes):
        stage, order = times[i]
        if node.op == "read" and node.run is not None:
            new.append((passes[stage, node.run], order))
        elif node.op == "write":
            due = [n for (at, run), n in passes.items() if run == node.run and at >= stage]
            new.append((min(due, default=len(visits)), order))
        else:
            new.append(max((new[j] for j in inputs(node)), default=BEFORE))
    return new, tuple(replace(visit, stage=n) for n, visit in enumerate(visits))


def _entries(graph: Graph, times: list[Time], visits: tuple[Visit, ...]) -> Iterator[Entry]:
    for i, node in enumerate(graph.nodes):
        stage, order = times[i]
        if node.op != "write":
            yield Entry(stage, order, i)
            continue
        for visit in visits:
            if visit.run == node.run and visit.stage >= stage and order <= visit.depth:
                yield Entry(visit.stage, order, i)


def _uses(graph: Graph, entries: list[Entry]) -> tuple[int, ...]:
    uses = [0] * len(graph.nodes)
    for entry in entries:
        for i in inputs(graph.nodes[entry.node]):
            uses[i] += 1
    return tuple(uses)


def _narrow_head_reads(graph: Graph, sites: SiteMap, reads: dict[int, tuple[int, ...]]) -> Graph:
    """Finds reads of the last module of which only some positions are used, and lets their users count from those."""
    if sites.head is None:
        return graph
    nodes = list(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if node.op != "read" or node.site != f"{sites.head}.output" or node.run is None:
            continue
        shape = sites.site(node.site).value
        prompt = graph.runs[node.run].prompt
        if not isinstance(shape, SiteTensor) or len(shape.token_axes) != 1 or not isinstance(prompt, tuple):
            continue
        users = [j for j, other in enumerate(nodes) if i in inputs(other)]
        used = {j: used_positions(nodes[j], i, shape, len(prompt)) for j in users}
        if not users or any(positions is None for positions in used.values()):
            continue
        reads[i] = tuple(sorted({p for positions in used.values() for p in positions or ()}))
        for j in users:
            nodes[j] = _renumbered(nodes[j], shape, len(prompt), reads[i])
    return replace(graph, nodes=tuple(nodes))


def used_positions(node: Node, read: int, shape: SiteTensor, tokens: int) -> tuple[int, ...] | None:
    """Which positions ``node`` takes from the value of ``read``; ``None`` if that is not known or all."""
    if node.op != "getitem" or node.args[0] != NodeRef(read) or len(node.args) != 2 or node.kwargs:
        return None
    index, place = _token_place(node, shape)
    along = None if place is None else index[place]
    if isinstance(along, int) and -tokens <= along < tokens:
        return (along % tokens,)
    if isinstance(along, SliceArg) and along.step in (None, 1):
        return tuple(range(tokens)[_python_slice(along)])
    return None


def _python_slice(part: SliceArg) -> slice:
    return slice(part.start, part.stop, part.step)


def _token_place(node: Node, shape: SiteTensor) -> tuple[tuple[Arg, ...], int | None]:
    """The index as a tuple, and which part of it is for the tokens' axis; ``None`` if that is not plain to see."""
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    if not all(_is_plain(part) for part in index) or len(index) > len(shape.shape) + index.count(...):
        return index, None
    axis = shape.token_axes[0]
    dots = index.index(...) if ... in index else len(index)
    if axis < dots:
        return index, axis if axis < len(index) else None
    place = len(index) - (len(shape.shape) - axis)
    return index, place if place > dots else None


def _is_plain(part: Arg) -> bool:
    if isinstance(part, SliceArg):
        return all(value is None or type(value) is int for value in (part.start, part.stop, part.step))
    return part is ... or type(part) is int


def _renumbered(node: Node, shape: SiteTensor, tokens: int, kept: tuple[int, ...]) -> Node:
    index, place = _token_place(node, shape)
    assert place is not None
    part = index[place]
    new: Arg
    if isinstance(part, SliceArg):
        taken = range(tokens)[_python_slice(part)]
        first = kept.index(taken[0]) if taken else 0
        new = SliceArg(first, first + len(taken))
    else:
        assert isinstance(part, int)
        new = kept.index(part % tokens)
    return replace(node, args=(node.args[0], (*index[:place], new, *index[place + 1 :])))


def touched(graph: Graph, sites: SiteMap) -> Iterator[tuple[str, SiteValue]]:
    """Path and value of every site that a graph reads or writes."""
    for node in graph.nodes:
        if node.op in ("read", "write") and node.site is not None:
            yield node.site, sites.site(node.site).value
