"""The lanes of runs that are changed: branches of their trunk, or of a branch that has their first changes in common.

A branch is worth it if less is computed than if each of its runs left by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.cohort import Beginning, tokens_of
from ndif_batch.engine.given import Prompted
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.routes import Reach, Route
from ndif_batch.engine.tasks import Member


@dataclass
class Lane:
    """A lane while it is planned.

    ``exit`` is the order of the last site at which it is needed; ``kept`` the positions needed where a pass is narrow;
    ``further`` how many steps of a generation may come after it.
    """

    prompt: Beginning
    start: int = 0
    birth: int = FROM_THE_BEGINNING
    trunk: int | None = None
    exit: int = -1
    kept: frozenset[int] = frozenset()
    further: int = 0

    @property
    def tokens(self) -> Prompted:
        """The tokens, or tensors, of which it is computed, if it is no branch."""
        return tokens_of(self.prompt)

    def need(self, until: int, positions: frozenset[int] = frozenset(), further: int = 0) -> None:
        """Somebody needs the lane up to the site at ``until``, and of it ``positions`` in the end."""
        self.exit = max(self.exit, until)
        self.further = max(self.further, further)
        if not positions <= self.kept:
            self.kept |= positions


class Step(NamedTuple):
    """A change of a run: equal ``same`` have had the same changes so far."""

    birth: int
    start: int
    same: Hashable


@dataclass(slots=True)
class Changed:
    """A run that is changed, or differentiated: its changes, how far it goes, what it needs in the end.

    ``owners`` are the tasks that have it: the lanes of a cohort, and the place there at which the lane is noted.
    """

    steps: tuple[Step, ...]
    exit: int = -1
    kept: frozenset[int] = frozenset()
    further: int = 0
    owners: list[tuple[Numbers, int]] = field(default_factory=list)

    def join(self, lanes: Numbers, place: int, route: Route, reach: Reach) -> None:
        """A further task has this run, and needs it as far as its route goes."""
        self.owners.append((lanes, place))
        self.exit = max(self.exit, route.visit.depth)
        self.further = max(self.further, route.further)
        if not reach.kept <= self.kept:
            self.kept |= reach.kept

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
        start, lent, above = lane.start, lane.kept, lane.trunk
        if above is not None:
            lanes[above].need(moments.births[lane.birth])
            lane.kept = _from(lane.kept, start)
        while above is not None and start:
            owner = lanes[above]
            if owner.start < start:
                lent = lent - _from(lent, start)
                owner.need(lane.exit, _from(lent, owner.start))
                start = owner.start
            above = owner.trunk


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
            lane.need(run.exit, run.kept, run.further)
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
