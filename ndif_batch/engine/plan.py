"""What one pass runs: which tokens are computed, from which block on and how deep, and which runs share them.

Runs of the same tokens have one trunk, and those to which the same is done are one run. A write cannot change what
comes before it in the model, nor, in a causal model, tokens before its first position: from there on a run is a branch,
before that it is its trunk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.pack import Lanes, Numbers
from ndif_batch.engine.routes import Reach, Route


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
    """One pass, for gradients if it is ``differentiated``.

    ``birth`` and ``exit`` are by lane; ``kept`` are the positions needed where the pass is narrow, numbered over all
    lanes; ``due`` says at which order which cohorts have something to do.
    """

    stage: int
    lanes: Lanes
    birth: Numbers
    exit: Numbers
    kept: Numbers
    depth: int
    due: dict[int, list[Cohort]]
    differentiated: bool = False


@dataclass(slots=True)
class _Changed:
    """A run that is changed, or differentiated: where it leaves its trunk, how far it goes, what it needs in the end.

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
        differentiated=any(stage in cohort.program.differentiated for cohort in well),
    )


def _assigned(visits: Sequence[tuple[Cohort, Route]], moments: Moments) -> list[_Lane]:
    lanes: list[_Lane] = []
    trunks: dict[tuple[int, ...], int] = {}
    changed: dict[tuple[int, ...], dict[Hashable, _Changed]] = defaultdict(dict)
    for cohort, route in visits:
        visit = route.visit
        own = cohort.lanes[visit.stage, visit.run] = np.zeros(len(cohort.members), np.int64)
        for place, member in enumerate(cohort.members):
            prompt, reach = member.prompts[visit.run], route.reach(member)
            if visit.apart:
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
