"""Programs of one form at sites of equal kinds in equal order: compiled once, then put to each one's sites."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ndif_batch.engine.forms import Form
from ndif_batch.engine.histories import Stories, stories
from ndif_batch.engine.program import Entry, Program, at_sites, compile_task
from ndif_batch.engine.schedule import AFTER, BEFORE, END
from ndif_batch.graph.nodes import Arg, Graph, Node, ParamRef, Value, leaves, map_node
from ndif_batch.graph.sites import SiteMap


@dataclass(frozen=True)
class Skeleton:
    """A program at the ``sites`` of whoever came first, and its form's graph there, all parameters in them still."""

    form: Form
    graph: Graph
    program: Program
    sites: tuple[str, ...]
    stories: tuple[Stories, ...]

    @cached_property
    def _open(self) -> frozenset[int]:
        """The nodes in which settled parameters stand."""
        settled = {ParamRef(name) for name in self.form.settled}
        nodes = self.program.graph.nodes
        return frozenset(i for i, node in enumerate(nodes) if not settled.isdisjoint(leaves(tuple(node.arguments()))))

    def at(
        self, sites: Sequence[str], values: Mapping[str, Value], known: SiteMap
    ) -> tuple[Program, Sequence[Stories]]:
        """The program at other sites, with the ``values`` of settled parameters, and its visits' stories."""
        names = dict(zip(self.sites, sites, strict=True))
        orders = {known.sites[old].order: known.sites[new].order for old, new in names.items() if old in known.sites}
        orders |= {outside: outside for outside in (BEFORE[1], END, AFTER)}
        settled = frozenset(self.form.settled)

        def leaf(arg: Arg) -> Arg:
            return values[arg.param] if isinstance(arg, ParamRef) and arg.param in settled else arg

        def placed(i: int, node: Node) -> Node:
            if i in self._open:
                node = map_node(node, leaf)
            if node.site is None:
                return node
            return Node(node.op, node.args, node.kwargs, node.run, names[node.site], node.index, node.name)

        program, graph = self.program, self.program.graph
        placed_at = replace(
            program,
            graph=replace(graph, nodes=tuple([placed(i, node) for i, node in enumerate(graph.nodes)])),
            entries=tuple([Entry(entry.stage, orders[entry.order], entry.node) for entry in program.entries]),
            visits=tuple([replace(visit, depth=orders[visit.depth]) for visit in program.visits]),
        )
        return placed_at, [tuple([story.at(names) for story in told]) for told in self.stories]


class Skeletons:
    """The skeletons of programs on one model."""

    def __init__(self, sites: SiteMap) -> None:
        self._sites = sites
        self._known: dict[Hashable, Skeleton] = {}

    def of(self, form: Form, sites: tuple[str, ...], *, together: bool) -> Skeleton:
        """The skeleton of a form at some sites; errors and ``together`` are those of
        :func:`ndif_batch.engine.program.compile_task`."""
        key = (form.number, together, *self._pattern(sites))
        found = self._known.get(key)
        if found is None:
            graph = at_sites(form.graph, {f"s{number}": site for number, site in enumerate(sites)})
            program = compile_task(graph, form.origin, self._sites, together=together)
            told = tuple([stories(program, visit, self._sites) for visit in program.visits])
            found = self._known[key] = Skeleton(form, graph, program, sites, told)
        return found

    def _pattern(self, sites: tuple[str, ...]) -> tuple[Hashable, ...]:
        """All that a program's making knows of its sites: what they hold, and which comes first."""
        known = self._sites.sites
        places = [(known[path].order if path in known else -1, path) for path in sites]
        ranks = {place: rank for rank, place in enumerate(sorted(set(places)))}
        return tuple([self._kind(path) for path in sites]), tuple([ranks[place] for place in places])

    def _kind(self, path: str) -> Hashable:
        """What a site holds, or a weight, or what a module takes in and gives."""
        known = self._sites.sites
        if path in known:
            return known[path].value, known[path].refused
        ends = (known.get(f"{path}.input"), known.get(f"{path}.output"))
        return self._sites.weights.get(path), tuple([None if end is None else end.value for end in ends])
