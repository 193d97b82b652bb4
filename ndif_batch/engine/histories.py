"""What has happened to a changed run, as a value: runs of equal histories are one run, whatever tasks they are of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import CHOOSE, before, needs, order_of
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


Stories: TypeAlias = tuple[History, ...]
"""What was done to a run after each site at which it is written to, in the order of a pass; the last has all of it."""


def stories(program: Program, visit: Visit, sites: SiteMap) -> Stories:
    """What is done to the run of a visit.

    Empty if nobody can have the same: with random numbers in it, or if the pass changes another run of the task, too,
    since equal runs are changed in step. Nor if the pass is for gradients: a task's own are those of a run of its own.
    """
    if visit.stage in program.differentiated:
        return ()
    beside = (other for other in program.visits if other.stage == visit.stage and other.run != visit.run)
    if any(other.writes for other in beside):
        return ()
    at = {i: order_of(program.graph.nodes[i], sites) for i in visit.writes}
    found = [
        _history(program, visit.run, [i for i in visit.writes if at[i] <= order], sites)
        for order in sorted(set(at.values()))
    ]
    return tuple([story for story in found if story is not None]) if None not in found else ()


def _history(program: Program, run: int, writes: Sequence[int], sites: SiteMap) -> History | None:
    nodes = program.graph.nodes
    behind = sorted(_behind(program, writes, sites))
    if any(nodes[i].op in RANDOM or _is_of_another_step(program, run, nodes[i]) for i in behind):
        return None
    place = {i: number for number, i in enumerate(behind)}
    params: dict[str, int] = {}
    runs = {run: 0}
    named: dict[str, str] = {}

    def leaf(arg: Arg) -> Arg:
        if isinstance(arg, NodeRef):
            return NodeRef(place[arg.node])
        return ParamRef(str(params.setdefault(arg.param, len(params)))) if isinstance(arg, ParamRef) else arg

    def told(node: Node) -> Node:
        number = None if node.run is None else runs.setdefault(node.run, len(runs))
        site = None if node.site is None else named.setdefault(node.site, str(len(named)))
        return replace(map_node(node, leaf), run=number, site=site)

    story = repr([told(nodes[i]) for i in behind])
    return History(story, tuple(params), tuple(runs), tuple(named))


def _behind(program: Program, writes: Sequence[int], sites: SiteMap) -> set[int]:
    """Some writes, the nodes whose values they need, and the writes that show in what those read.

    What came before a step is known by what the run has seen, and is not among them.
    """
    found: set[int] = set()
    waiting = list(writes)
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += [j for j in needs(program.graph, sites, i) if program.graph.nodes[j].op != CHOOSE]
    return found


def _is_of_another_step(program: Program, run: int, node: Node) -> bool:
    """Whether a node looks at a run that begins with a token: what that has seen is in no story but its own."""
    return node.run is not None and node.run != run and before(program.graph, node.run) is not None


def exact(value: object) -> Hashable:
    """A value for comparing: equal only for equal values of one type; ``-0.0`` is not ``0.0``."""
    return type(value), value.hex() if isinstance(value, float) else value
