"""What becomes of a leased shard: written and committed, failed, or given back; and of a job that ends with it."""

from __future__ import annotations

import structlog

from ndif_batch.archive import write_shard
from ndif_batch.errors import NdifBatchError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.queue.records import Lease
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import Counted, OpenJobs
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.ports import Counters
from ndif_batch.worker.progress import Tally
from ndif_batch.worker.work import ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Settler:
    """Tells the queue what became of shards, through outages; afterwards they are no longer held."""

    def __init__(
        self,
        queue: WorkerQueue,
        jobs: OpenJobs,
        heart: Heartbeat,
        patience: Patience,
        counters: Counters,
        tally: Tally,
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._heart = heart
        self._ask = patience.ask
        self._counters = counters
        self._tally = tally

    def commit(self, work: ShardWork, cost: Cost, counted: Counted) -> None:
        """Write a finished shard and say so, unless it was lost in the meantime."""
        job, shard = work.job, work.shard
        if not self._heart.holds(shard.id):
            return
        write_shard(job.record.store, job.spec, shard.first_task, work.values, work.status)
        mine = self._ask(lambda: self._queue.commit(shard.id, shard.epoch, work.failures, cost))
        self._heart.release(shard.id)
        if mine:
            self._tally.shard()
        log.info("shard.done" if mine else "shard.late", job=job.record.id, shard=shard.id, failed=len(work.failures))
        self._finish_if_over(job.record.id, counted)

    def fail(self, lease: Lease, error: Exception, *, retryable: bool) -> None:
        """The whole shard failed; an ``error`` that nobody raised on purpose is logged with its traceback."""
        known = error if isinstance(error, NdifBatchError) else None
        code, message = (known.code, known.message) if known else ("engine", f"{type(error).__name__}: {error}")
        log.error(
            "shard.failed",
            job=lease.job.id,
            shard=lease.shard.id,
            code=code,
            reason=message,
            exc_info=None if known else error,
        )
        self._ask(lambda: self._queue.fail(lease.shard.id, lease.shard.epoch, code, message, retryable))
        self._heart.release(lease.shard.id)
        self._finish_if_over(lease.job.id, Counted.now(self._counters))

    def give_back(self, lease: Lease) -> None:
        """Another worker may have it."""
        self._ask(lambda: self._queue.give_back(lease.shard.id, lease.shard.epoch))
        self._heart.release(lease.shard.id)

    def finish_what_others_left(self) -> None:
        """Give the archives of ended jobs their manifests, if nobody else is going to."""
        for job in self._ask(lambda: self._queue.left_over(self._heart.worker_id)):
            self._jobs.close(job, Counted.now(self._counters))

    def _finish_if_over(self, job_id: int, counted: Counted) -> None:
        for job in self._ask(lambda: self._queue.ended([job_id])):
            self._jobs.close(job, counted)
