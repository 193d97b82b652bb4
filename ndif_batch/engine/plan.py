"""What one pass runs: which tokens are computed, from which block on and how deep, and which runs share them.

Runs of the same tokens have one trunk, and those to which the same is done are one run. A write cannot change what
comes before it in the model, nor, in a causal model, tokens before its first position: from there on a run is a branch,
before that it is its trunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.histories import History, history
from ndif_batch.engine.indices import plain_parts, positions
from ndif_batch.engine.pack import Lanes, Numbers
from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import order_of
from ndif_batch.engine.tasks import Member
from ndif_batch.graph.nodes import Arg, Node, ParamRef, SliceArg, leaves
from ndif_batch.graph.sites import SiteMap, SiteTensor


@dataclass
class _Lane:
    """A lane while it is planned.

    ``exit`` is the order of the last site at which it is needed; ``kept`` the positions needed where a pass is narrow.
    """

    prompt: tuple[int, ...]
    start: int = 0
    birth: int = FROM_THE_BEGINNING
    trunk: int | None = None
    exit: int = -1
    kept: frozenset[int] = frozenset()

    def need(self, until: int, positions: frozenset[int] = frozenset()) -> None:
        """Somebody needs the lane up to the site at ``until``, and of it ``positions`` in the end."""
        self.exit = max(self.exit, until)
        if not positions <= self.kept:
            self.kept |= positions


@dataclass(frozen=True)
class PassPlan:
    """One pass. ``birth`` and ``exit`` are by lane; ``kept`` are the positions needed where the pass is narrow,
    numbered over all lanes; ``due`` says at which order which cohorts have something to do."""

    stage: int
    lanes: Lanes
    birth: Numbers
    exit: Numbers
    kept: Numbers
    depth: int
    due: dict[int, list[Cohort]]


@dataclass(slots=True)
class _Changed:
    """A run that is written to: where it leaves its trunk, how far it goes, what it needs in the end.

    ``owners`` are the tasks that have it: the lanes of a cohort, and the place there at which the lane is noted.
    """

    birth: int
    start: int
    exit: int = -1
    kept: frozenset[int] = frozenset()
    lent: frozenset[int] = frozenset()
    owners: list[tuple[Numbers, int]] = field(default_factory=list)

    def join(self, lanes: Numbers, place: int, depth: int, reach: Reach) -> None:
        """A further task has this run, and needs it up to the site at ``depth``."""
        self.owners.append((lanes, place))
        self.exit = max(self.exit, depth)
        if not reach.kept <= self.kept:
            self.kept |= reach.kept
            self.lent |= reach.lent


def plan_pass(
    cohorts: Sequence[Cohort], routes: Mapping[int, Sequence[Route]], stage: int, moments: Moments
) -> PassPlan | None:
    """The pass of ``stage``, or ``None`` if no task that is still well has a run in it.

    ``routes`` are by the identity of a program. Tells the cohorts which lanes their runs have.
    """
    well = [cohort for cohort in cohorts if cohort.members]
    visits = [(cohort, route) for cohort in well for route in routes[id(cohort.program)] if route.visit.stage == stage]
    if not visits:
        return None
    lanes = _assigned(visits, moments)
    due: dict[int, list[Cohort]] = defaultdict(list)
    for cohort in well:
        for order in cohort.due(stage):
            due[order].append(cohort)
    made = Lanes(
        prompts=tuple(lane.prompt for lane in lanes),
        start=np.array([lane.start for lane in lanes], np.int64),
        trunk=np.array([i if lane.trunk is None else lane.trunk for i, lane in enumerate(lanes)], np.int64),
    )
    return PassPlan(
        stage=stage,
        lanes=made,
        birth=np.array([lane.birth for lane in lanes], np.int64),
        exit=np.array([lane.exit for lane in lanes], np.int64),
        kept=np.array(list(_kept(lanes, made, moments)), np.int64),
        depth=max(lane.exit for lane in lanes),
        due=due,
    )


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
    may do the same.
    """

    visit: Visit
    birth: int
    starts: tuple[Arg, ...]
    ends: tuple[Arg, ...]
    causal: bool
    numbers: tuple[str, ...]
    history: History | None
    _known: dict[tuple[Any, ...], Reach] = field(default_factory=dict, compare=False)

    def reach(self, member: Member) -> Reach:
        """Of a task; the same for all whose prompts are equally long and whose indices are equal."""
        length = len(member.prompts[self.visit.run])
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


def routes(program: Program, sites: SiteMap, moments: Moments) -> tuple[Route, ...]:
    """The visits of a program as this model sees them."""

    def route(visit: Visit) -> Route:
        nodes = [program.graph.nodes[i] for i in (*visit.reads, *visit.writes)]
        writes = nodes[len(visit.reads) :]
        late = [node for node in nodes if moments.narrow is not None and order_of(node, sites) >= moments.narrow]
        birth = min((moments.birth(order_of(node, sites)) for node in writes), default=FROM_THE_BEGINNING)
        starts = tuple(_part(node, sites, program) for node in writes)
        ends = tuple(_part(node, sites, program) for node in late)
        named = dict.fromkeys(leaf.param for leaf in leaves((*starts, *ends)) if isinstance(leaf, ParamRef))
        return Route(visit, birth, starts, ends, moments.causal, tuple(named), history(program, visit, sites))

    return tuple(route(visit) for visit in program.visits)


def _part(node: Node, sites: SiteMap, program: Program) -> Arg | None:
    """The part of a node's index that is for the tokens' axis; ``None`` if that is not plain to see."""
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


def _assigned(visits: Sequence[tuple[Cohort, Route]], moments: Moments) -> list[_Lane]:
    lanes: list[_Lane] = []
    trunks: dict[tuple[int, ...], int] = {}
    changed: dict[tuple[int, ...], dict[Hashable, _Changed]] = defaultdict(dict)
    for cohort, route in visits:
        visit = route.visit
        own = cohort.lanes[visit.stage, visit.run] = np.zeros(len(cohort.members), np.int64)
        for place, member in enumerate(cohort.members):
            prompt, reach = member.prompts[visit.run], route.reach(member)
            if visit.writes:
                same = (id(own), place) if route.history is None else route.history.of(member)
                run = changed[prompt].get(same)
                if run is None:
                    run = changed[prompt][same] = _Changed(route.birth, reach.start)
                run.join(own, place, visit.depth, reach)
                continue
            if prompt not in trunks:
                trunks[prompt] = len(lanes)
                lanes.append(_Lane(prompt))
            own[place] = trunks[prompt]
            lanes[trunks[prompt]].need(visit.depth, reach.kept)
    for prompt, runs in changed.items():
        _branch(lanes, trunks.get(prompt), prompt, list(runs.values()), moments)
    return lanes


def _branch(
    lanes: list[_Lane], trunk: int | None, prompt: tuple[int, ...], runs: Sequence[_Changed], moments: Moments
) -> None:
    """Gives the changed runs of a prompt their lanes: branches of its trunk if that is less to compute."""
    branches = [run for run in runs if run.birth != FROM_THE_BEGINNING]
    if branches and _gain(branches, len(prompt), None if trunk is None else lanes[trunk], moments) > 0:
        if trunk is None:
            trunk = len(lanes)
            lanes.append(_Lane(prompt))
    else:
        branches = []
    apart = {id(run) for run in branches}
    for run in runs:
        for own, place in run.owners:
            own[place] = len(lanes)
        if id(run) not in apart or trunk is None:
            lanes.append(_Lane(prompt, exit=run.exit, kept=run.kept))
            continue
        lanes.append(_Lane(prompt, run.start, run.birth, trunk, run.exit, run.kept - run.lent))
        lanes[trunk].need(moments.births[run.birth])
        if run.start:
            lanes[trunk].need(run.exit, run.lent)


def _gain(branches: Sequence[_Changed], length: int, trunk: _Lane | None, moments: Moments) -> int:
    """What branches save, less what their trunk costs, in tokens that go through a block."""

    def blocks(order: int) -> int:
        return moments.birth(order) + 1

    saved = deep = 0
    for run in branches:
        through = blocks(run.exit)
        saved += length * through - (length - run.start) * (through - run.birth)
        deep = max(deep, through if run.start else run.birth)
    there = 0 if trunk is None else blocks(trunk.exit)
    return saved - length * max(deep - there, 0)


def _kept(lanes: Sequence[_Lane], made: Lanes, moments: Moments) -> Iterator[int]:
    if moments.narrow is None:
        return
    for lane, first in zip(lanes, made.first.tolist(), strict=True):
        if lane.exit >= moments.narrow:
            yield from (first + position for position in sorted(lane.kept))
