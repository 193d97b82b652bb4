"""What one pass runs: which tokens are computed, from which block on and how deep, and which runs share them.

Runs of the same tokens have one trunk. A write cannot change what comes before it in the model, nor, in a causal
model, tokens before its first position: from there on a run is a branch, before that it is its trunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.indices import plain_parts, positions
from ndif_batch.engine.pack import Lanes, Numbers
from ndif_batch.engine.program import Program, Visit
from ndif_batch.engine.schedule import order_of
from ndif_batch.engine.tasks import Member
from ndif_batch.graph.nodes import Arg, Node, ParamRef, SliceArg
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
    kept: set[int] = field(default_factory=set)

    def need(self, until: int, positions: Iterable[int]) -> None:
        """Somebody needs the lane up to the site at ``until``, and of it ``positions`` in the end."""
        self.exit = max(self.exit, until)
        self.kept.update(positions)


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


@dataclass(frozen=True, slots=True)
class _Changed:
    """A run that is written to: whose it is, where it leaves its trunk, how far it goes, what it needs in the end."""

    lanes: Numbers
    place: int
    birth: int
    start: int
    exit: int
    kept: set[int]


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
class Route:
    """A visit on one model: at which birth its run has to be apart, and the parts of indices that say where.

    ``starts`` are those of its writes, ``ends`` those of what touches it where a pass is narrow; a part is ``None`` if
    it is not plain to see.
    """

    visit: Visit
    birth: int
    starts: tuple[Arg, ...]
    ends: tuple[Arg, ...]

    def start(self, member: Member, causal: bool) -> int:
        """The first position of a task's run that is not its trunk's."""
        if self.birth == FROM_THE_BEGINNING or not causal:
            return 0
        length = len(member.prompts[self.visit.run])
        return min(min(reached(part, member, length), default=length - 1) for part in self.starts)

    def kept(self, member: Member) -> set[int]:
        """The positions of a task's run that are needed in the end."""
        length = len(member.prompts[self.visit.run])
        return {position for part in self.ends for position in reached(part, member, length)}


def routes(program: Program, sites: SiteMap, moments: Moments) -> tuple[Route, ...]:
    """The visits of a program as this model sees them."""

    def route(visit: Visit) -> Route:
        nodes = [program.graph.nodes[i] for i in (*visit.reads, *visit.writes)]
        writes = nodes[len(visit.reads) :]
        late = [node for node in nodes if moments.narrow is not None and order_of(node, sites) >= moments.narrow]
        birth = min((moments.birth(order_of(node, sites)) for node in writes), default=FROM_THE_BEGINNING)
        return Route(
            visit,
            birth,
            tuple(_reach(node, sites, program) for node in writes),
            tuple(_reach(node, sites, program) for node in late),
        )

    return tuple(route(visit) for visit in program.visits)


def _reach(node: Node, sites: SiteMap, program: Program) -> Arg | None:
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
    changed: dict[tuple[int, ...], list[_Changed]] = defaultdict(list)
    for cohort, route in visits:
        visit = route.visit
        own = cohort.lanes[visit.stage, visit.run] = np.zeros(len(cohort.members), np.int64)
        for place, member in enumerate(cohort.members):
            prompt = member.prompts[visit.run]
            kept = route.kept(member)
            if visit.writes:
                start = route.start(member, moments.causal)
                changed[prompt].append(_Changed(own, place, route.birth, start, visit.depth, kept))
                continue
            if prompt not in trunks:
                trunks[prompt] = len(lanes)
                lanes.append(_Lane(prompt))
            own[place] = trunks[prompt]
            lanes[trunks[prompt]].need(visit.depth, kept)
    for prompt, runs in changed.items():
        _branch(lanes, trunks.get(prompt), prompt, runs, moments)
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
        run.lanes[run.place] = len(lanes)
        if id(run) not in apart or trunk is None:
            lanes.append(_Lane(prompt, exit=run.exit, kept=run.kept))
            continue
        lanes.append(_Lane(prompt, run.start, run.birth, trunk, run.exit, {p for p in run.kept if p >= run.start}))
        lanes[trunk].need(moments.births[run.birth], ())
        if run.start:
            lanes[trunk].need(run.exit, {p for p in run.kept if p < run.start})


def _gain(branches: Sequence[_Changed], length: int, trunk: _Lane | None, moments: Moments) -> int:
    """What branches save, less what their trunk costs, in tokens that go through a block."""

    def blocks(order: int) -> int:
        return moments.birth(order) + 1

    saved = deep = 0
    for run in branches:
        saved += length * blocks(run.exit) - (length - run.start) * (blocks(run.exit) - run.birth)
        deep = max(deep, blocks(run.exit) if run.start else run.birth)
    there = 0 if trunk is None else blocks(trunk.exit)
    return saved - length * max(deep - there, 0)


def _kept(lanes: Sequence[_Lane], made: Lanes, moments: Moments) -> Iterator[int]:
    if moments.narrow is None:
        return
    for lane, first in zip(lanes, made.first.tolist(), strict=True):
        if lane.exit >= moments.narrow:
            yield from (first + position for position in sorted(lane.kept))
