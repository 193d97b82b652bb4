"""The lanes of runs that are changed: branches of their trunk, or of a branch that has their first changes in common.

A branch is worth it if less is computed than if each of its runs left by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.given import Prompted
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.routes import Reach, Route
from ndif_batch.engine.stepping import Beginning, tokens_of
from ndif_batch.engine.tasks import Member

NONE: frozenset[int] = frozenset()


@dataclass(kw_only=True)
class Needed:
    """What is needed of a run.

    ``exit`` is the order of the last site, ``block`` the block in which that is; ``kept`` are the positions where a
    pass is narrow, ``settled`` those in the tail of ``block``; ``further`` is how many steps of a generation may come.
    """

    exit: int = -1
    block: int = -1
    kept: frozenset[int] = NONE
    settled: frozenset[int] = NONE
    further: int = 0

    def need(
        self,
        exit: int,  # noqa: A002  as the field
        block: int,
        kept: frozenset[int] = NONE,
        settled: frozenset[int] = NONE,
        further: int = 0,
    ) -> None:
        """Somebody needs this, too: who ends in an earlier block needs nothing in the tail of a later one."""
        if block > self.block:
            self.settled = settled
        elif block == self.block and not settled <= self.settled:
            self.settled |= settled
        if not kept <= self.kept:
            self.kept |= kept
        self.exit, self.block = max(self.exit, exit), max(self.block, block)
        self.further = max(self.further, further)


@dataclass
class Lane(Needed):
    """A lane while it is planned."""

    prompt: Beginning
    start: int = 0
    birth: int = FROM_THE_BEGINNING
    trunk: int | None = None

    @property
    def tokens(self) -> Prompted:
        """The tokens, or tensors, of which it is computed, if it is no branch."""
        return tokens_of(self.prompt)


class Step(NamedTuple):
    """A change of a run: equal ``same`` have had the same changes so far."""

    birth: int
    start: int
    same: Hashable


@dataclass
class Changed(Needed):
    """A run that is changed, or differentiated: its changes, and what is needed of it.

    ``owners`` are the tasks that have it: the lanes of a cohort, and the place there at which the lane is noted.
    """

    steps: tuple[Step, ...]
    owners: list[tuple[Numbers, int]] = field(default_factory=list)

    def join(self, lanes: Numbers, place: int, route: Route, reach: Reach) -> None:
        """A further task has this run, and needs it as far as its route goes."""
        self.owners.append((lanes, place))
        self.need(route.visit.depth, route.block, reach.kept, reach.settled, route.further)

    def start(self, first: int = 0, end: int | None = None) -> int:
        """Where its changes from number ``first`` on, up to ``end``, begin."""
        steps = self.steps[first:end]
        return steps[0].start if len(steps) == 1 else min([step.start for step in steps])


def changes_of(route: Route, reach: Reach, member: Member, same: Hashable) -> tuple[Step, ...]:
    """The changes of a task's run, of which ``same`` is the whole history."""
    if len(route.changes) == 1:
        return (Step(route.changes[0].birth, reach.starts[0], same),)
    earlier = [
        (id(route), change.birth, same) if change.history is None else change.history.of(member)
        for change in route.changes[:-1]
    ]
    births = [change.birth for change in route.changes]
    return tuple(map(Step, births, reach.starts, [*earlier, same]))


def branch(lanes: list[Lane], trunk: int | None, prompt: Beginning, runs: Sequence[Changed], moments: Moments) -> None:
    """Gives the changed runs of a prompt their lanes: branches of its trunk if that is less to compute."""
    branches = [run for run in runs if run.steps[0].birth != FROM_THE_BEGINNING]
    growing = _Growing(lanes, prompt, moments)
    length = len(tokens_of(prompt))
    if branches and _gain(branches, length, None if trunk is None else lanes[trunk], moments) > 0:
        if trunk is None:
            trunk = len(lanes)
            lanes.append(Lane(prompt))
    else:
        branches = []
    apart = {id(run) for run in branches}
    growing.leave(None, [run for run in runs if id(run) not in apart], 0)
    growing.leave(trunk, branches, 0)


def lend(lanes: Sequence[Lane], moments: Moments) -> None:
    """Has those be there from whom a branch comes, and who have tokens that it borrows; trunks are before branches."""
    for lane in reversed(lanes):
        start, kept, settled, above = lane.start, lane.kept, lane.settled, lane.trunk
        if above is not None:
            _come_from(lanes, lane, moments)
            lane.kept, lane.settled = _from(kept, start), _from(settled, start)
        while above is not None and start:
            owner = lanes[above]
            if owner.start < start:
                kept, settled = kept - _from(kept, start), settled - _from(settled, start)
                owner.need(lane.exit, lane.block, _from(kept, owner.start), _from(settled, owner.start))
                start = owner.start
            above = owner.trunk


def _come_from(lanes: Sequence[Lane], lane: Lane, moments: Moments) -> None:
    """Has those be there of whom a branch takes its first tokens when it is born."""
    birth = moments.births[lane.birth]
    block, above = moments.ends_in(birth), lane.trunk
    taken = lane.settled if block == lane.block else frozenset(range(len(lane.tokens)))
    taken = _from(taken, lane.start)
    while above is not None:
        owner = lanes[above]
        owner.need(birth, block, settled=_from(taken, owner.start))
        if owner.start <= lane.start:
            break
        taken, above = taken - _from(taken, owner.start), owner.trunk


def _from(positions: frozenset[int], start: int) -> frozenset[int]:
    if not start or not positions:
        return positions
    return frozenset([position for position in positions if position >= start])


@dataclass(frozen=True, slots=True)
class _Growing:
    """The lanes of a pass while those of a prompt are added."""

    lanes: list[Lane]
    prompt: Beginning
    moments: Moments

    def leave(self, trunk: int | None, runs: Sequence[Changed], done: int) -> None:
        """Runs leave a lane in which their first ``done`` changes are; without one they begin with the pass."""
        if all(len(run.steps) == done + 1 for run in runs):  # what is done to each is another thing
            for run in runs:
                self._add(trunk, run, done, done + 1, (run,))
            return
        for alike in _by_change(runs, done):
            self._together(trunk, alike, done)

    def _together(self, trunk: int | None, runs: Sequence[Changed], done: int) -> None:
        """Runs whose next change is the same have a lane for all that they have in common, if that is less."""
        if len(runs) == 1:
            self._add(trunk, runs[0], done, len(runs[0].steps), runs)
            return
        common = done + 1
        while len(parts := _by_change(runs, common)) == 1:
            common += 1
        if self._together_is_less(trunk, runs, done, common):
            ended = [run for run in runs if len(run.steps) == common]
            lane = self._add(trunk, runs[0], done, common, ended)
            self.leave(lane, [run for run in runs if len(run.steps) > common], common)
        else:
            for part in parts:
                self._together(trunk, part, done)

    def _add(self, trunk: int | None, like: Changed, done: int, end: int, runs: Sequence[Changed]) -> int:
        """A lane for changes from number ``done`` to ``end``, with the ``runs`` that have no more."""
        birth, start = _begin(trunk, like, done, end)
        lane = Lane(self.prompt, start, birth, trunk)
        for run in runs:
            lane.need(run.exit, run.block, run.kept, run.settled, run.further)
            for own, place in run.owners:
                own[place] = len(self.lanes)
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def _together_is_less(self, trunk: int | None, runs: Sequence[Changed], done: int, common: int) -> bool:
        birth, start = _begin(trunk, runs[0], done, common)
        apart = further = deep = 0
        for run in runs:
            through = _blocks(run.exit, self.moments)
            apart += self._tokens(*_begin(trunk, run, done, len(run.steps)), through)
            if len(run.steps) == common:
                deep = max(deep, through)
            else:
                own = run.steps[common].birth, run.start(common)
                further += self._tokens(*own, through)
                deep = max(deep, through if own[1] > start else own[0])
        return self._tokens(birth, start, deep) + further < apart

    def _tokens(self, birth: int, start: int, through: int) -> int:
        """Tokens that go through a block, for a lane up to block ``through``."""
        return (len(tokens_of(self.prompt)) - start) * (through - max(birth, 0))


def _by_change(runs: Sequence[Changed], number: int) -> list[list[Changed]]:
    """The runs whose change of a number is the same; one that has no such change by itself."""
    found: dict[Hashable, list[Changed]] = {}
    for run in runs:
        found.setdefault(run.steps[number].same if len(run.steps) > number else id(run), []).append(run)
    return list(found.values())


def _begin(trunk: int | None, run: Changed, done: int, end: int) -> tuple[int, int]:
    """Birth and start of a lane for a run's changes from number ``done`` to ``end``."""
    return (FROM_THE_BEGINNING, 0) if trunk is None else (run.steps[done].birth, run.start(done, end))


def _blocks(order: int, moments: Moments) -> int:
    """How many blocks a lane goes through that is needed up to the site at ``order``."""
    return moments.birth(order) + 1


def _gain(branches: Sequence[Changed], length: int, trunk: Lane | None, moments: Moments) -> int:
    """What branches save, less what their trunk costs, in tokens that go through a block."""
    saved = deep = 0
    depths = {order: _blocks(order, moments) for order in {run.exit for run in branches}}
    for run in branches:
        through, birth, start = depths[run.exit], run.steps[0].birth, run.start()
        saved += length * through - (length - start) * (through - birth)
        deep = max(deep, through if start else birth)
    there = 0 if trunk is None else _blocks(trunk.exit, moments)
    return saved - length * max(deep - there, 0)
