"""What has happened to a changed run, as a value: runs of equal histories are one run, whatever tasks they are of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import CHOOSE, before, needs
from ndif_batch.engine.tasks import Member
from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, map_node
from ndif_batch.graph.operations import RANDOM
from ndif_batch.graph.sites import SiteMap


@dataclass(frozen=True, slots=True)
class History:
    """The writes of a run, and all that what they write is made of, without the names that a graph gives it.

    ``story`` has parameters, runs and sites by number: ``params``, ``runs`` and ``sites`` say which those of the
    program are.
    """

    story: str
    params: tuple[str, ...]
    runs: tuple[int, ...]
    sites: tuple[str, ...]

    def at(self, names: Mapping[str, str]) -> History:
        """The same at other sites."""
        return replace(self, sites=tuple([names[site] for site in self.sites]))

    def of(self, member: Member) -> Hashable:
        """The history of a task's run."""
        return (
            self.story,
            self.sites,
            tuple([exact(member.bindings[name]) for name in self.params]),
            tuple([member.prompts[run] for run in self.runs if run < len(member.prompts)]),
        )


def history(program: Program, visit: Visit, sites: SiteMap) -> History | None:
    """What is done to the run of a visit.

    ``None`` if nobody can have the same: with random numbers in it, or if the pass changes another run of the task,
    too, since equal runs are changed in step. Nor if the pass is for gradients: a task's own are those of a run of its
    own.
    """
    if visit.stage < program.differentiated:
        return None
    beside = (other for other in program.visits if other.stage == visit.stage and other.run != visit.run)
    if not visit.writes or any(other.writes for other in beside):
        return None
    nodes = program.graph.nodes
    behind = sorted(_behind(program, visit, sites))
    if any(nodes[i].op in RANDOM or _is_of_another_step(program, visit, nodes[i]) for i in behind):
        return None
    place = {i: number for number, i in enumerate(behind)}
    params: dict[str, int] = {}
    runs = {visit.run: 0}
    named: dict[str, str] = {}

    def leaf(arg: Arg) -> Arg:
        if isinstance(arg, NodeRef):
            return NodeRef(place[arg.node])
        return ParamRef(str(params.setdefault(arg.param, len(params)))) if isinstance(arg, ParamRef) else arg

    def told(node: Node) -> Node:
        run = None if node.run is None else runs.setdefault(node.run, len(runs))
        site = None if node.site is None else named.setdefault(node.site, str(len(named)))
        return replace(map_node(node, leaf), run=run, site=site)

    story = repr([told(nodes[i]) for i in behind])
    return History(story, tuple(params), tuple(runs), tuple(named))


def _behind(program: Program, visit: Visit, sites: SiteMap) -> set[int]:
    """The writes of a visit, the nodes whose values they need, and the writes that show in what those read.

    What came before a step is known by what the run has seen, and is not among them.
    """
    found: set[int] = set()
    waiting = list(visit.writes)
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += [j for j in needs(program.graph, sites, i) if program.graph.nodes[j].op != CHOOSE]
    return found


def _is_of_another_step(program: Program, visit: Visit, node: Node) -> bool:
    """Whether a node looks at a run that begins with a token: what that has seen is in no story but its own."""
    return node.run is not None and node.run != visit.run and before(program.graph, node.run) is not None


def exact(value: object) -> Hashable:
    """A value for comparing: equal only for equal values of one type; ``-0.0`` is not ``0.0``."""
    return type(value), value.hex() if isinstance(value, float) else value
