"""What one pass runs: which tokens are computed, from which block on and how deep, and which runs share them.

Runs of the same tokens have one trunk, and those to which the same is done are one run. A write cannot change what
comes before it in the model, nor, in a causal model, tokens before its first position: from there on a run is a branch,
before that it is its trunk. Runs that begin with the same changes have one branch for these, and leave that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ndif_batch.engine.blocks import Moments
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.pack import Lanes, Numbers
from ndif_batch.engine.routes import Route
from ndif_batch.engine.tree import Changed, Lane, branch, changes_of, lend


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


def _assigned(visits: Sequence[tuple[Cohort, Route]], moments: Moments) -> list[Lane]:
    lanes: list[Lane] = []
    trunks: dict[tuple[int, ...], int] = {}
    changed: dict[tuple[int, ...], dict[Hashable, Changed]] = defaultdict(dict)
    for cohort, route in visits:
        visit = route.visit
        own = cohort.lanes[visit.stage, visit.run] = np.zeros(len(cohort.members), np.int64)
        for place, member in enumerate(cohort.members):
            prompt, reach = member.prompts[visit.run], route.reach(member)
            if visit.apart:
                same = (id(own), place) if route.history is None else route.history.of(member)
                run = changed[prompt].get(same)
                if run is None:
                    run = changed[prompt][same] = Changed(changes_of(route, reach, member, same))
                run.join(own, place, visit.depth, reach)
                continue
            if prompt not in trunks:
                trunks[prompt] = len(lanes)
                lanes.append(Lane(prompt))
            own[place] = trunks[prompt]
            lanes[trunks[prompt]].need(visit.depth, reach.kept)
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
