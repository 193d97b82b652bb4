"""What becomes of leased shards: written and committed, failed or given back; and of jobs that end with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ndif_batch.archive import Verified, write_shard
from ndif_batch.errors import NdifBatchError, NotFoundError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import Finished, WorkerQueue
from ndif_batch.queue.records import Lease
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import Counted, OpenJobs
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.ports import Counters
from ndif_batch.worker.progress import Tally
from ndif_batch.worker.work import ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Complete:
    """A shard that has all its outcomes, what they cost, the engine's counters at that moment, and a sample's check."""

    work: ShardWork
    cost: Cost
    counted: Counted
    check: Verified | None = None


class Committer:
    """Brings outcomes to disk and to the queue, through outages; what it has told is no longer held."""

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

    def write(self, shard: Complete) -> bool:
        """Bring a shard's results to disk; False if it was lost meanwhile."""
        work = shard.work
        if not self._heart.holds(work.shard.id):
            return False
        try:
            store, spec, first = work.job.record.store, work.job.spec, work.shard.first_task
            write_shard(store, spec, first, work.values, work.status, work.states())
        except NotFoundError as error:  # somebody deleted the archive: a matter of this job alone
            self.fail(work.lease, error, retryable=False)
            return False
        work.forget()
        return True

    def commit(self, shards: Sequence[Complete]) -> None:
        """Tell the queue of written shards; jobs that ended with them get their manifest."""
        finished = [
            Finished(one.work.shard.id, one.work.shard.epoch, one.work.failures, one.cost, one.check) for one in shards
        ]
        with self._heart.telling([one.shard_id for one in finished]):
            mine = self._ask(lambda: self._queue.commit(finished))
            for shard_id in mine:  # a refused one may be held again, under a newer lease
                self._heart.release(shard_id)
        for one in shards:
            work, shard_id = one.work, one.work.shard.id
            told = "shard.done" if shard_id in mine else "shard.late"
            log.info(told, job=work.job.record.id, shard=shard_id, failed=len(work.failures))
        self._tally.shards(len(mine))
        self._finish_ended({one.work.job.record.id: one.counted for one in shards})

    def fail(self, lease: Lease, error: Exception, *, retryable: bool) -> None:
        """The whole shard failed; an ``error`` that is not ours is logged with its traceback."""
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
        with self._heart.telling([lease.shard.id]):
            self._ask(lambda: self._queue.fail(lease.shard.id, lease.shard.epoch, code, message, retryable))
            self._heart.release(lease.shard.id)
        self._finish_ended({lease.job.id: Counted.now(self._counters)})

    def give_back(self, lease: Lease) -> None:
        """Another worker may have it."""
        with self._heart.telling([lease.shard.id]):
            self._ask(lambda: self._queue.give_back(lease.shard.id, lease.shard.epoch))
            self._heart.release(lease.shard.id)

    def finish_what_others_left(self) -> None:
        """Give the archives of ended jobs their manifests, if nobody else is going to."""
        for job in self._ask(lambda: self._queue.left_over(self._heart.worker_id)):
            self._jobs.close(job, Counted.now(self._counters))

    def _finish_ended(self, counted: dict[int, Counted]) -> None:
        for job in self._ask(lambda: self._queue.ended(list(counted))):
            self._jobs.close(job, counted[job.id])
