"""A graph made ready to run: what is done where in which pass, and how far each run has to go.

A program is for all tasks of a graph that touch the same sites; what else they bind is still a parameter in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from ndif_batch.engine.schedule import AFTER, BEFORE, CHOOSE, TARGET, Time, before, reads, times
from ndif_batch.engine.takes import reads_as_takes
from ndif_batch.engine.targets import BACKWARD, check_gradients, grads_with_targets
from ndif_batch.engine.unroll import unrolled
from ndif_batch.errors import GraphError
from ndif_batch.graph.bind import site_params
from ndif_batch.graph.nodes import Arg, Graph, Node, ParamRef, Value, inputs, leaves
from ndif_batch.graph.passes.common import merge_common
from ndif_batch.graph.passes.dead import drop_dead
from ndif_batch.graph.sites import SiteMap, SiteValue, tensors_of

NO_VISITS: Final = slice(0)


@dataclass(frozen=True, slots=True)
class Entry:
    """Do ``node`` when pass ``stage`` comes to the site at ``order``."""

    stage: int
    order: int
    node: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One run in one pass: how deep it goes, which nodes look at it and change it on the way, and at which
    ``targets`` it is differentiated."""

    run: int
    stage: int
    depth: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    targets: tuple[int, ...] = ()

    @property
    def apart(self) -> bool:
        """Whether the run is another than the prompt's alone."""
        return bool(self.writes or self.targets)


@dataclass(frozen=True)
class Program:
    """A graph of concrete sites with its schedule. ``origin[i]`` is the submitted id of node ``i``.

    ``entries`` are in the order of execution, ``visits`` in that of passes; ``uses[i]`` says how often node ``i``'s
    value is asked for.
    """

    graph: Graph
    origin: tuple[int, ...]
    entries: tuple[Entry, ...]
    visits: tuple[Visit, ...]
    uses: tuple[int, ...]

    @cached_property
    def params(self) -> tuple[str, ...]:
        """The parameters whose values its nodes take."""
        found = (leaf for node in self.graph.nodes for arg in node.arguments() for leaf in leaves(arg))
        return tuple(dict.fromkeys([leaf.param for leaf in found if isinstance(leaf, ParamRef)]))

    @cached_property
    def due(self) -> Mapping[int, frozenset[int]]:
        """By pass where in it there is something to do."""
        found: dict[int, set[int]] = {}
        for entry in self.entries:
            if entry.order >= 0:
                found.setdefault(entry.stage, set()).add(entry.order)
        return {stage: frozenset(orders) for stage, orders in found.items()}

    @cached_property
    def visits_at(self) -> Mapping[int, slice]:
        """By pass which of the visits are in it."""
        stages = [visit.stage for visit in self.visits]
        return {stage: slice(bisect_left(stages, stage), bisect_right(stages, stage)) for stage in set(stages)}

    def choosing(self, stage: int) -> list[int]:
        """The runs that choose a token in a pass."""
        visits = self.visits[self.visits_at.get(stage, NO_VISITS)]
        return [visit.run for visit in visits if self.choices.get(visit.run) in visit.reads]

    @property
    def generates(self) -> bool:
        """Whether a run begins with a token that another has chosen."""
        return bool(self.following)

    def most_after_first(self, length: Callable[[int], int]) -> int:
        """The most tokens of a pass after the first, of runs of such lengths that share nothing."""
        return max((steps + sum(map(length, runs)) for steps, runs in self._later), default=0)

    @cached_property
    def _later(self) -> frozenset[tuple[int, tuple[int, ...]]]:
        """Of each pass after the first how many runs of steps are in it, and which others."""
        found = set()
        for stage, part in self.visits_at.items():
            runs = [visit.run for visit in self.visits[part] if stage]
            prompts = tuple([run for run in runs if before(self.graph, run) is None])
            found.add((len(runs) - len(prompts), prompts))
        return frozenset(found)

    @cached_property
    def choices(self) -> dict[int, int]:
        """By run the node that chooses its next token."""
        return {node.run: i for i, node in enumerate(self.graph.nodes) if node.op == CHOOSE and node.run is not None}

    @cached_property
    def following(self) -> dict[int, int]:
        """By a node that chooses a token the run that begins with that."""
        chosen = ((before(self.graph, run), run) for run in range(len(self.graph.runs)))
        return {choice: run for choice, run in chosen if choice is not None}

    @cached_property
    def stages(self) -> int:
        """Number of passes."""
        return max((visit.stage for visit in self.visits), default=-1) + 1

    @cached_property
    def differentiated(self) -> frozenset[int]:
        """The passes through which gradients go."""
        last = max((entry.stage for entry in self.of(BACKWARD)), default=BEFORE[0] - 1)
        return frozenset(visit.stage for visit in self.visits if visit.apart and visit.stage <= last)

    def of(self, op: str) -> Iterator[Entry]:
        """When the nodes of an operation are carried out."""
        return (entry for entry in self.entries if self.graph.nodes[entry.node].op == op)


def optimise(graph: Graph) -> tuple[Graph, tuple[int, ...]]:
    """The graph without what is not needed or done twice, parameters still in it, and the submitted id of each node."""
    *_, (optimised, origin) = rewritten(graph)
    return optimised, origin


def rewritten(graph: Graph) -> Iterator[tuple[Graph, tuple[int, ...]]]:
    """The graph as it was submitted, then without dead nodes, then without common ones, too; each as above."""
    graph = without_hints(graph)
    origin = tuple(range(len(graph.nodes)))
    yield graph, origin
    for simplify in (drop_dead, merge_common):
        graph, kept = simplify(graph)
        origin = tuple(origin[i] for i in kept)
        yield graph, origin


def without_hints(graph: Graph) -> Graph:
    """``skip`` is a write of the module's whole output; where a run can ``stop`` the planner finds by itself."""

    def plain(node: Node) -> Node:
        return replace(node, op="write", site=f"{node.site}.output") if node.op == "skip" else node

    return replace(graph, nodes=tuple(plain(node) for node in graph.nodes))


def at_sites(graph: Graph, bindings: Mapping[str, Value]) -> Graph:
    """The graph with the parameters inside its sites bound, and no others."""

    def bound(node: Node) -> Node:
        if node.site is None or "{" not in node.site:
            return node
        return replace(node, site=node.site.format_map({name: bindings[name] for name in site_params(node.site)}))

    return replace(graph, nodes=tuple(bound(node) for node in graph.nodes))


def compile_task(graph: Graph, origin: tuple[int, ...], sites: SiteMap, *, together: bool = True) -> Program:
    """Makes a program of an optimised graph of concrete sites; ``origin`` is as in :class:`Program`.

    ``together`` says that all runs of a pass go side by side, so that one can use what another read at an earlier
    site of the same pass. ``GraphError`` names the nodes of a cycle; ``ModelError`` a site that does not exist.
    """
    _check_writes(graph, origin, sites)
    graph, origin = unrolled(graph, origin, sites)
    graph, origin = reads_as_takes(*grads_with_targets(graph, origin), sites)
    check_gradients(graph, origin, sites)
    at = times(graph, origin, sites, together=together)
    visits = tuple(_visits(graph, at))
    if not together:
        at, visits = _one_run_a_pass(graph, at, visits)
    entries = sorted(_entries(graph, at, visits), key=lambda e: (e.stage, e.order, e.node))
    return Program(graph, origin, tuple(entries), visits, _uses(graph, entries))


def touched(program: Program, sites: SiteMap) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor that a program touches: its site, and the items of tuples that lead to it."""
    for node in program.graph.nodes:
        if node.site is not None and (reads(node) or node.op in ("write", TARGET)):
            items, value = _reached(sites.site(str(node.site)).value, node.index or ())
            yield from ((str(node.site), (*items, *deeper)) for deeper, _ in tensors_of(value))


def _check_writes(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> None:
    """Ids and masks steer the model: overwritten with nonsense they would break the pass for every run in it."""
    for i, node in enumerate(graph.nodes):
        if node.op == "write" and not _holds_floats(_reached(sites.site(str(node.site)).value, node.index or ())[1]):
            raise GraphError(
                f"site {node.site!r} holds no activations, so it cannot be written",
                rule="site",
                node=origin[i],
                hint="for other tokens, give the run another prompt",
            )


def _reached(value: SiteValue, index: tuple[Arg, ...]) -> tuple[tuple[int, ...], SiteValue]:
    """The part of a site's value that an index leads to, and the items on the way: items of tuples come first."""
    items: list[int] = []
    for part in index:
        if not isinstance(value, tuple) or not isinstance(part, int) or not -len(value) <= part < len(value):
            break
        items.append(part % len(value))
        value = value[part]
    return tuple(items), value


def _holds_floats(value: SiteValue) -> bool:
    if isinstance(value, tuple):
        return all(_holds_floats(item) for item in value)
    return value is None or "float" in value.dtype


def _visits(graph: Graph, at: list[Time]) -> Iterator[Visit]:
    wanted: dict[tuple[int, int], list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if reads(node) and node.run is not None:
            wanted.setdefault((at[i][0], node.run), []).append(i)
    differentiated = max((at[i][0] for i, node in enumerate(graph.nodes) if node.op == BACKWARD), default=BEFORE[0] - 1)
    for (stage, run), nodes in sorted(wanted.items()):
        depth = max(at[i][1] for i in nodes)
        writes, targets = (
            tuple(
                i
                for i, node in enumerate(graph.nodes)
                if node.op == op and node.run == run and at[i][0] <= stage and at[i][1] <= depth
            )
            for op in (("write", TARGET) if stage <= differentiated else ("write", None))
        )
        yield Visit(run, stage, depth, tuple(nodes), writes, targets)


def _one_run_a_pass(graph: Graph, at: list[Time], visits: tuple[Visit, ...]) -> tuple[list[Time], tuple[Visit, ...]]:
    """Gives each visit a pass of its own, in the same order."""
    passes = {(visit.stage, visit.run): n for n, visit in enumerate(visits)}
    new: list[Time] = []
    for i, node in enumerate(graph.nodes):
        stage, order = at[i]
        if reads(node) and node.run is not None:
            new.append((passes[stage, node.run], order))
        elif node.op in ("write", TARGET):
            due = [n for (then, run), n in passes.items() if run == node.run and then >= stage]
            new.append((min(due, default=len(visits)), order))
        elif node.op == BACKWARD:
            new.append((max(new[j][0] for j in inputs(node)), AFTER))
        else:
            new.append(max((new[j] for j in inputs(node)), default=BEFORE))
    return new, tuple(replace(visit, stage=n) for n, visit in enumerate(visits))


def _entries(graph: Graph, at: list[Time], visits: tuple[Visit, ...]) -> Iterator[Entry]:
    for i, node in enumerate(graph.nodes):
        stage, order = at[i]
        if node.op not in ("write", TARGET):
            yield Entry(stage, order, i)
            continue
        for visit in visits:
            if i in visit.writes or i in visit.targets:
                yield Entry(visit.stage, order, i)


def _uses(graph: Graph, entries: list[Entry]) -> tuple[int, ...]:
    uses = [0] * len(graph.nodes)
    for entry in entries:
        for i in inputs(graph.nodes[entry.node]):
            uses[i] += 1
    return tuple(uses)
