"""Jobs, and the tasks of one job, in the order in which they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive import TaskStatus
from ndif_batch.errors import NotFoundError, TimedOutError
from ndif_batch.graph.nodes import Value
from ndif_batch.queue.records import JobRecord
from ndif_batch.sweep.space import Space

if TYPE_CHECKING:
    from ndif_batch.archive import Results
    from ndif_batch.client.handle import JobHandle

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task that has its outcome: what it bound and what it saved (nothing if it failed).

    ``result["name"]`` is a numpy array of the task's own shape; bfloat16 is float32.
    """

    id: int
    status: TaskStatus
    bindings: Mapping[str, Value]
    saves: Mapping[str, np.ndarray[Any, Any]]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self.saves[name]


class Completed:
    """The tasks of a job, each told once."""

    def __init__(self, record: JobRecord) -> None:
        self._space = Space.from_json(record.space)
        self._told = np.zeros(record.tasks, dtype=np.bool_)

    def new(self, record: JobRecord, results: Callable[[], Results]) -> Iterator[TaskResult]:
        """The tasks that have ended since the last time; ``results`` is not asked for if there can be none."""
        if record.tasks_done + record.tasks_failed > self._told.sum() or record.state.final:
            from ndif_batch.archive import completed

            try:
                found = results()
            except NotFoundError:
                if record.removed_at is None:
                    return
                raise
            for task in completed(found, self._told):
                yield TaskResult(task.id, task.status, self._space.bindings(task.id), task.saves)


def as_completed(
    jobs: Iterable[JobHandle],
    timeout: float | None = None,
    *,
    poll_seconds: float = POLL_SECONDS,
    pause: Callable[[float], None] = sleep,
    clock: Callable[[], float] = monotonic,
) -> Iterator[JobHandle]:
    """Each job when it has ended, whichever way; ``TimedOutError`` if some have not after ``timeout`` seconds."""
    left = list(jobs)
    deadline = None if timeout is None else clock() + timeout
    while left:
        ended = [job for job in left if job.refresh().state.final]
        left = [job for job in left if job not in ended]
        yield from ended
        if left and deadline is not None and clock() >= deadline:
            raise TimedOutError(f"{len(left)} jobs have not ended after {timeout:g} s")
        if left:
            pause(poll_seconds)
