"""The visits of a program as a model sees them: where a run leaves its trunk, and what of it is needed in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.histories import History, Stories, stories
from ndif_batch.engine.indices import plain_parts, positions
from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import CHOOSE, order_of
from ndif_batch.engine.tasks import Member
from ndif_batch.graph.nodes import Arg, Node, ParamRef, SliceArg, leaves
from ndif_batch.graph.sites import SiteMap, SiteTensor

NEVER = 2**62
"""An order that no site has: nothing comes after it."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What a task's run has of its own: the positions from ``starts[n]`` on by its change number ``n``.

    ``kept`` are the positions that are needed in the end, ``settled`` those in the tail of the block in which it ends.
    """

    starts: tuple[int, ...]
    kept: frozenset[int]
    settled: frozenset[int] = frozenset()

    @property
    def start(self) -> int:
        """The first position that is its own."""
        return min(self.starts)


@dataclass(frozen=True, slots=True)
class Change:
    """What is written to a run between two births: at the first of them, at the latest, it has to be apart.

    ``starts`` are the parts of indices that say where, ``None`` if that is not plain to see. ``history`` is what was
    done to the run up to the end of it, if other tasks may do the same.
    """

    birth: int
    starts: tuple[Arg, ...]
    history: History | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A visit on one model: the changes of its run in the order of a pass; none if nothing is written to it.

    It ends in ``block``, by the block's number.
    ``ends`` are the parts of indices, as in :class:`Change`, of what touches it where a pass is narrow, ``last`` those
    in the tail of the block in which it ends. ``numbers`` are the parameters in all of them. ``further`` is how many
    steps may come after the one of the visit.
    """

    visit: Visit
    block: int
    changes: tuple[Change, ...]
    ends: tuple[Arg, ...]
    last: tuple[Arg, ...]
    causal: bool
    numbers: tuple[str, ...]
    further: int = 0
    _known: dict[tuple[Any, ...], Reach] = field(default_factory=dict, compare=False)

    @property
    def birth(self) -> int:
        """At which birth the run has to be apart."""
        return self.changes[0].birth if self.changes else FROM_THE_BEGINNING

    @property
    def history(self) -> History | None:
        """What is done to the run in the end."""
        return self.changes[-1].history if self.changes else None

    def reach(self, member: Member) -> Reach:
        """Of a task; the same for all whose prompts are equally long and whose indices are equal."""
        length = member.length(self.visit.run)
        bound = [member.bindings[name] for name in self.numbers]
        key = (length, *bound, *map(type, bound)) if bound else (length,)
        found = self._known.get(key)
        if found is None:
            starts = tuple([self._start(change, member, length) for change in self.changes])
            kept, settled = (self._reached(parts, member, length) for parts in (self.ends, self.last))
            found = self._known[key] = Reach(starts or (0,), kept, settled)
        return found

    def _reached(self, parts: Sequence[Arg], member: Member, length: int) -> frozenset[int]:
        return frozenset(position for part in parts for position in reached(part, member, length))

    def _start(self, change: Change, member: Member, length: int) -> int:
        if change.birth == FROM_THE_BEGINNING or not self.causal:
            return 0
        return min(min(reached(part, member, length), default=length - 1) for part in change.starts)


Reaches: TypeAlias = dict[tuple[Any, ...], dict[tuple[Any, ...], Reach]]
"""What is known already, of routes that touch their runs at the same parts."""


def routes(
    program: Program,
    sites: SiteMap,
    moments: Moments,
    told: Sequence[Stories] | None = None,
    reaches: Reaches | None = None,
) -> tuple[Route, ...]:
    """The visits of a program as this model sees them; ``told`` are the stories of its runs, if they are known."""
    told = [stories(program, visit, sites) for visit in program.visits] if told is None else told
    reaches = {} if reaches is None else reaches

    def route(visit: Visit, story: Stories) -> Route:
        changing = [program.graph.nodes[i] for i in (*visit.targets, *visit.writes)]
        nodes = [*changing, *[program.graph.nodes[i] for i in visit.reads]]
        block = moments.ends_in(visit.depth)
        tail = moments.tails[max(block, 0)] if moments.tails else NEVER
        changes = tuple(_changes(program, changing, sites, moments, story))
        if visit.stage in program.differentiated:
            changes = _at_once(changes)
        orders = [order_of(node, sites) for node in nodes]
        ends, last = (
            tuple([_part(node, sites, program) for node, at in zip(nodes, orders, strict=True) if at > after])
            for after in (NEVER if moments.narrow is None else moments.narrow - 1, tail)
        )
        parts = (*ends, *last, *[part for change in changes for part in change.starts])
        named = dict.fromkeys([leaf.param for leaf in leaves(parts) if isinstance(leaf, ParamRef)])
        touched = tuple([(change.birth == FROM_THE_BEGINNING, change.starts) for change in changes])
        known = reaches.setdefault((moments.causal, touched, ends, last), {})
        return Route(visit, block, changes, ends, last, moments.causal, tuple(named), further(program, visit), known)

    return tuple(map(route, program.visits, told))


def _changes(
    program: Program, writes: Sequence[Node], sites: SiteMap, moments: Moments, told: Stories
) -> Iterator[Change]:
    orders = [order_of(node, sites) for node in writes]
    births = [moments.birth(order) for order in orders]
    story = dict(zip(sorted(set(orders)), told, strict=bool(told)))
    for birth in sorted(set(births)):
        starts = tuple([_part(node, sites, program) for node, own in zip(writes, births, strict=True) if own == birth])
        last = max(order for order, own in zip(orders, births, strict=True) if own == birth)
        yield Change(birth, starts, story.get(last))


def _at_once(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """One change in place of several: where gradients flow a run leaves its trunk once."""
    starts = tuple([part for change in changes for part in change.starts])
    return (Change(changes[0].birth, starts, None),) if changes else ()


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
