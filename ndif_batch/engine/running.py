"""Tasks on their way through passes: some begin, others generate and go on, each cohort at a stage of its own.

Whoever has ended leaves. As long as some generate, waiting tasks join them wherever there is room for their prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ndif_batch.engine.batches import Batch, Prepared, Waiting
from ndif_batch.engine.cache import Cache
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.tasks import Surroundings


class Running:
    """The tasks of a batch and those that have joined them. ``cache`` has what those that generate have seen."""

    def __init__(self, around: Surroundings, *, packed: bool) -> None:
        self.cohorts: list[Cohort] = []
        self.cache = Cache()
        self._around = around
        self._packed = packed
        self._tasks: dict[int, Prepared] = {}
        self._room: Batch | None = None

    @property
    def tasks(self) -> list[Prepared]:
        """Those that have not been let go."""
        return list(self._tasks.values())

    @property
    def generates(self) -> bool:
        """Whether some take further steps."""
        return any(cohort.program.generates for cohort in self.cohorts)

    def begin(self, tasks: Sequence[Prepared]) -> None:
        """Tasks begin with the next pass."""
        self._tasks |= {task.member.index: task for task in tasks}
        self._room = None
        self.cohorts += [Cohort(own[0].program, [task.member for task in own], self._around) for own in _alike(tasks)]

    def join(self, waiting: Waiting) -> Batch | None:
        """Between two passes: if some generate and there is room for others, these begin with the next.

        Gives all tasks of that pass, or ``None`` if nobody has joined.
        """
        if not self.generates or waiting.first is None:
            return None
        if self._room is None:
            self._room = Batch()
            for task in self._tasks.values():
                self._room.add(task.going_on())
        batch, joined = self._room, waiting.join(self._room)
        if not joined:
            return None
        self.begin(joined)
        return batch

    def passes(self) -> list[Sequence[Cohort]]:
        """The cohorts of each pass of this round: those with gradients and the others.

        They are packed, or those whose runs are of one length go together. A pass with gradients holds on to what each
        of its tokens makes on the way, so that others have passes of their own.
        """
        kinds = [[c for c in self.cohorts if c.is_differentiated is wanted] for wanted in (False, True)]
        return [beside for own in kinds if own for beside in self._side_by_side(own)]

    def _side_by_side(self, cohorts: Sequence[Cohort]) -> Iterator[Sequence[Cohort]]:
        if self._packed:
            yield cohorts
            return
        by_length: dict[int, list[Cohort]] = {}
        for cohort in cohorts:
            for visit in cohort.program.visits:
                if visit.stage == cohort.stage and cohort.members and visit.run not in cohort.over:
                    by_length.setdefault(cohort.members[0].length(visit.run), []).append(cohort)
        yield from by_length.values()

    def leave(self) -> list[Cohort]:
        """The round is over: everyone goes on by one stage. Gives those that need no further pass."""
        for cohort in self.cohorts:
            cohort.leave_pass()
        going = {id(cohort) for cohort in self.cohorts if cohort.goes_on}
        left = [cohort for cohort in self.cohorts if id(cohort) not in going]
        self.cohorts = [cohort for cohort in self.cohorts if id(cohort) in going]
        return left

    def let_go(self, cohorts: Sequence[Cohort]) -> None:
        """Nothing can go wrong any more with what these have saved."""
        for index in [index for cohort in cohorts for index in cohort.tasks]:
            del self._tasks[index]
            self._room = None


def _alike(tasks: Sequence[Prepared]) -> list[list[Prepared]]:
    """The tasks of each program, which go through a pass as one cohort."""
    found: dict[int, list[Prepared]] = {}
    for task in tasks:
        found.setdefault(id(task.program), []).append(task)
    return list(found.values())
