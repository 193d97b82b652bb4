"""What one pass runs: which tokens are computed, from which block on and how deep, and which runs share them.

Runs of the same tokens have one trunk, and those to which the same is done are one run. A write cannot change what
comes before it in the model, nor, in a causal model, tokens before its first position: from there on a run is a branch,
before that it is its trunk. Runs that begin with the same changes have one branch for these, and leave that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ndif_batch.engine.blocks import Moments
from ndif_batch.engine.cache import Cache, Past
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.pack import NOWHERE, Lanes, Numbers
from ndif_batch.engine.program import NO_VISITS
from ndif_batch.engine.routes import Route
from ndif_batch.engine.stepping import Beginning, Next
from ndif_batch.engine.tree import Changed, Lane, branch, changes_of, lend


@dataclass(frozen=True)
class PassPlan:
    """One pass, for gradients if it is ``differentiated``.

    ``birth`` and ``exit`` are by lane, as are ``pasts``: what is kept of it for a next step. ``kept`` are the positions
    needed where the pass is narrow, numbered over all lanes; ``tails`` those in the tails of some blocks, by their
    numbers. ``due`` says at which order which cohorts have something to do.
    """

    lanes: Lanes
    birth: Numbers
    exit: Numbers
    kept: Numbers
    depth: int
    due: dict[int, list[Cohort]]
    differentiated: bool = False
    pasts: tuple[Past | None, ...] = ()
    tails: Mapping[int, Numbers] = field(default_factory=dict)


FEW = 0.75
"""Of so small a part of the tokens the tail of a block is computed apart: to take it out and put it back costs, too."""


def plan_pass(
    cohorts: Sequence[Cohort],
    routes: Mapping[int, Sequence[Route]],
    moments: Moments,
    cache: Cache | None = None,
) -> PassPlan | None:
    """The next pass of cohorts, each at its own stage; ``None`` if no task that is still well has a run in it.

    ``routes`` are by the identity of a program. Tells the cohorts which lanes their runs have. In ``cache`` those that
    generate have regions.
    """
    well = [cohort for cohort in cohorts if cohort.members]
    visits = [
        (cohort, route)
        for cohort in well
        for route in routes[id(cohort.program)][cohort.program.visits_at.get(cohort.stage, NO_VISITS)]
        if route.visit.run not in cohort.over
    ]
    if not visits:
        return None
    lanes = _assigned(visits, moments)
    pasts = [None if cache is None else _kept_past(lane, cache) for lane in lanes]
    due: dict[int, list[Cohort]] = defaultdict(list)
    for cohort in well:
        for order in cohort.program.due.get(cohort.stage, ()):
            due[order].append(cohort)
    made = Lanes(
        prompts=tuple(lane.tokens for lane in lanes),
        start=np.array([lane.start for lane in lanes], np.int64),
        trunk=np.array([i if lane.trunk is None else lane.trunk for i, lane in enumerate(lanes)], np.int64),
        past=np.array([lane.prompt.past.tokens if isinstance(lane.prompt, Next) else 0 for lane in lanes], np.int64),
        region=np.array([NOWHERE if past is None else past.region.begin for past in pasts], np.int64),
    )
    differentiated = any(cohort.is_differentiated for cohort in well)
    return PassPlan(
        lanes=made,
        birth=np.array([lane.birth for lane in lanes], np.int64),
        exit=np.array([lane.exit for lane in lanes], np.int64),
        kept=np.array(list(_kept(lanes, made, moments)), np.int64),
        depth=max(lane.exit for lane in lanes),
        due=due,
        differentiated=differentiated,
        pasts=tuple(pasts),
        tails={} if differentiated else dict(_tails(lanes, made, moments)),
    )


def _kept_past(lane: Lane, cache: Cache) -> Past | None:
    """What a lane will have seen, if it follows a step or a step follows."""
    if isinstance(lane.prompt, Next):
        before = lane.prompt.past
        region = cache.extended(before, before.tokens + 1 + lane.further)
        region.used = before.tokens + 1
    elif lane.further:
        region = cache.region(len(lane.prompt) + lane.further)
        region.used = len(lane.prompt)
    else:
        return None
    return Past(region, region.used)


def _assigned(visits: Sequence[tuple[Cohort, Route]], moments: Moments) -> list[Lane]:
    lanes: list[Lane] = []
    trunks: dict[Beginning, int] = {}
    changed: dict[Beginning, dict[Hashable, Changed]] = defaultdict(dict)
    for cohort, route in visits:
        visit = route.visit
        own = cohort.lanes[visit.stage, visit.run] = np.zeros(len(cohort.members), np.int64)
        for place, (member, prompt) in enumerate(zip(cohort.members, cohort.beginnings(visit.run), strict=True)):
            reach = route.reach(member)
            if visit.apart:
                same = (id(own), place) if route.history is None else route.history.of(member)
                run = changed[prompt].get(same)
                if run is None:
                    run = changed[prompt][same] = Changed(changes_of(route, reach, member, same))
                run.join(own, place, route, reach)
                continue
            if prompt not in trunks:
                trunks[prompt] = len(lanes)
                lanes.append(Lane(prompt))
            own[place] = trunks[prompt]
            lanes[trunks[prompt]].need(visit.depth, route.block, reach.kept, reach.settled, route.further)
    for prompt, runs in changed.items():
        branch(lanes, trunks.get(prompt), prompt, list(runs.values()), moments)
    lend(lanes, moments)
    return lanes


def _kept(lanes: Sequence[Lane], made: Lanes, moments: Moments) -> Iterator[int]:
    if moments.narrow is None:
        return
    for lane, first in zip(lanes, made.first.tolist(), strict=True):
        if lane.exit >= moments.narrow:
            yield from (first + position for position in sorted(lane.kept))


def _tails(lanes: Sequence[Lane], made: Lanes, moments: Moments) -> Iterator[tuple[int, Numbers]]:
    """The positions that the tail of a block computes, if these are few: of lanes that end in it those needed there."""
    for block in sorted({lane.block for lane in lanes if lane.block >= 0}) if moments.tails else ():
        needed, tokens = [], 0
        for lane, first, length in zip(lanes, made.first.tolist(), made.length.tolist(), strict=True):
            if lane.birth <= block <= lane.block:
                own = range(lane.start, length) if lane.block > block else sorted(lane.settled)
                needed += [first + position for position in own]
                tokens += length - lane.start
        if 0 < len(needed) <= FEW * tokens:
            yield block, np.array(needed, np.int64)
