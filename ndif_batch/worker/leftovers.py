"""Which ended jobs nobody is going to finish: their last worker died between its commit and the archive's manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from ndif_batch.queue.records import JobRecord, WorkerRecord, WorkerState

LONGEST_FINISH = timedelta(hours=1)
"""After this time nobody is still writing a manifest."""

ALIVE = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)


def left_over(jobs: Iterable[JobRecord], workers: Sequence[WorkerRecord], me: int) -> list[JobRecord]:
    """Those of the ended ``jobs`` that worker ``me``, who has just begun, may finish.

    A job that ended lately is left to the others of its model, if one of them lives: two that write a manifest at
    once would disagree.
    """
    mine = next(worker for worker in workers if worker.id == me)
    now = mine.registered_at
    others = [worker for worker in workers if worker.id != me and worker.state in ALIVE and worker.alive_until > now]

    def abandoned(job: JobRecord) -> bool:
        if job.finished_at is not None and now - job.finished_at > LONGEST_FINISH:
            return True
        return not any(other.model == mine.model for other in others)

    return [job for job in jobs if job.model == mine.model and abandoned(job)]
