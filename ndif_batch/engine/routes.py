"""The visits of a program as a model sees them: where a run leaves its trunk, and what of it is needed in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.histories import History, history
from ndif_batch.engine.indices import plain_parts, positions
from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import CHOOSE, order_of
from ndif_batch.engine.tasks import Member
from ndif_batch.graph.nodes import Arg, Node, ParamRef, SliceArg, leaves
from ndif_batch.graph.sites import SiteMap, SiteTensor


@dataclass(frozen=True, slots=True)
class Reach:
    """What a task's run has of its own: the positions from ``start`` on.

    ``kept`` are the positions that are needed in the end, ``lent`` those of them that are before ``start``.
    """

    start: int
    kept: frozenset[int]
    lent: frozenset[int]


@dataclass(frozen=True, slots=True)
class Route:
    """A visit on one model: at which birth its run has to be apart, and the parts of indices that say where.

    ``starts`` are those of its writes, ``ends`` those of what touches it where a pass is narrow; a part is ``None`` if
    it is not plain to see. ``numbers`` are the parameters in them. ``history`` is what the writes do, if other tasks
    may do the same. ``further`` is how many steps may come after the one of the visit.
    """

    visit: Visit
    birth: int
    starts: tuple[Arg, ...]
    ends: tuple[Arg, ...]
    causal: bool
    numbers: tuple[str, ...]
    history: History | None
    further: int = 0
    _known: dict[tuple[Any, ...], Reach] = field(default_factory=dict, compare=False)

    def reach(self, member: Member) -> Reach:
        """Of a task; the same for all whose prompts are equally long and whose indices are equal."""
        length = member.length(self.visit.run)
        bound = [member.bindings[name] for name in self.numbers]
        key = (length, *bound, *map(type, bound))
        found = self._known.get(key)
        if found is None:
            start = self._start(member, length)
            kept = frozenset(position for part in self.ends for position in reached(part, member, length))
            lent = frozenset(position for position in kept if position < start)
            found = self._known[key] = Reach(start, kept, lent)
        return found

    def _start(self, member: Member, length: int) -> int:
        if self.birth == FROM_THE_BEGINNING or not self.causal:
            return 0
        return min(min(reached(part, member, length), default=length - 1) for part in self.starts)


def routes(
    program: Program, sites: SiteMap, moments: Moments, histories: Sequence[History | None] | None = None
) -> tuple[Route, ...]:
    """The visits of a program as this model sees them; ``histories`` are those of its runs, if they are known."""
    if histories is None:
        histories = [history(program, visit, sites) for visit in program.visits]

    def route(visit: Visit, story: History | None) -> Route:
        nodes = [program.graph.nodes[i] for i in (*visit.targets, *visit.writes, *visit.reads)]
        changes = nodes[: len(visit.targets) + len(visit.writes)]
        late = [node for node in nodes if moments.narrow is not None and order_of(node, sites) >= moments.narrow]
        birth = min((moments.birth(order_of(node, sites)) for node in changes), default=FROM_THE_BEGINNING)
        starts = tuple(_part(node, sites, program) for node in changes)
        ends = tuple(_part(node, sites, program) for node in late)
        named = dict.fromkeys(leaf.param for leaf in leaves((*starts, *ends)) if isinstance(leaf, ParamRef))
        return Route(visit, birth, starts, ends, moments.causal, tuple(named), story, further(program, visit))

    return tuple(map(route, program.visits, histories))


def further(program: Program, visit: Visit) -> int:
    """How many steps of a generation follow a visit at which a token is chosen."""
    nodes = program.graph.nodes
    choice = next((i for i in visit.reads if nodes[i].op == CHOOSE), None)
    count = 0
    while choice is not None:
        run = program.following.get(choice)
        choice = None if run is None else program.choices.get(run)
        count += run is not None
    return count


def _part(node: Node, sites: SiteMap, program: Program) -> Arg | None:
    """The part of a node's index that is for the tokens' axis; ``None`` if that is not plain to see."""
    if node.op == CHOOSE:
        return -1
    value, index = sites.site(str(node.site)).value, node.index or ()
    while isinstance(value, tuple) and index:
        item = index[0]
        if type(item) is not int or not -len(value) <= item < len(value):
            return None
        value, index = value[item], index[1:]
    if not isinstance(value, SiteTensor) or len(value.token_axes) != 1:
        return None
    parts = plain_parts(index, len(value.shape), program.graph.params)
    return None if parts is None else parts[value.token_axes[0]]


def reached(part: Arg | None, member: Member, length: int) -> range:
    """The positions that a node touches in a task's run; all of them if they are not known, or wrong."""

    def number(one: Arg) -> Any:
        if isinstance(one, SliceArg):
            return slice(number(one.start), number(one.stop), number(one.step))
        return member.bindings[one.param] if isinstance(one, ParamRef) else one

    if part is None:
        return range(length)
    try:
        return positions(number(part), length)
    except (IndexError, TypeError, ValueError):
        return range(length)
