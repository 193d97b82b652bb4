"""The results' way into the archive and the queue: whole shards written one by one, then committed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from ndif_batch.archive import write_shard
from ndif_batch.errors import NdifBatchError, NotFoundError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import ShardRecord
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import Counted, OpenJobs
from ndif_batch.worker.ports import JobQueue
from ndif_batch.worker.work import ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()
Answer = TypeVar("Answer")


class Ask(Protocol):
    """Puts a question to the queue, through outages."""

    def __call__(self, question: Callable[[], Answer], /) -> Answer:
        """The answer, when there is one."""


@dataclass(frozen=True, slots=True)
class Complete:
    """A shard that has all its outcomes, what they cost, and the engine's counters at that moment."""

    work: ShardWork
    cost: Cost
    counted: Counted


class Committer:
    """Writes and commits the complete shards of one worker. ``on_done`` is told how many were this worker's."""

    def __init__(
        self, queue: JobQueue, heart: Heartbeat, jobs: OpenJobs, ask: Ask, on_done: Callable[[int], Any]
    ) -> None:
        self._queue = queue
        self._heart = heart
        self._jobs = jobs
        self._ask = ask
        self._on_done = on_done

    def write(self, shard: Complete) -> bool:
        """Bring a shard's results to disk; False if it was lost meanwhile."""
        work = shard.work
        if not self._heart.holds(work.shard.id):
            return False
        try:
            write_shard(work.job.record.store, work.job.spec, work.shard.first_task, work.values, work.status)
        except NotFoundError as error:  # somebody deleted the archive: a matter of this job alone
            self._fail(work.shard, error)
            return False
        return True

    def commit(self, shards: Sequence[Complete]) -> None:
        """Tell the queue of written shards; jobs that ended with them get their manifest."""
        finished = [Finished(one.work.shard.id, one.work.shard.epoch, one.work.failures, one.cost) for one in shards]
        mine = self._ask(lambda: self._queue.commit(finished))
        for one in shards:
            work, shard_id = one.work, one.work.shard.id
            self._heart.release(shard_id)
            told = "shard.done" if shard_id in mine else "shard.late"
            log.info(told, job=work.job.record.id, shard=shard_id, failed=len(work.failures))
        self._on_done(len(mine))
        for job_id, counted in {one.work.job.record.id: one.counted for one in shards}.items():
            self.finish_if_over(job_id, counted)

    def _fail(self, shard: ShardRecord, error: NdifBatchError) -> None:
        log.error("shard.failed", shard=shard.id, code=error.code, reason=error.message)
        self._ask(lambda: self._queue.fail(shard.id, shard.epoch, error.code, error.message, retryable=False))
        self._heart.release(shard.id)

    def finish_if_over(self, job_id: int, counted: Counted) -> None:
        """Close a job that has ended."""
        record = self._ask(lambda: self._queue.job(job_id))
        if record.state.final:
            self._jobs.close(record, counted)
