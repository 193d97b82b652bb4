"""The queue as every other room sees it: one method a transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Self

from ndif_batch.archive.verified import Verified
from ndif_batch.queue import (
    backlog,
    checks,
    dependencies,
    endings,
    jobs,
    leasing,
    models,
    outcomes,
    reading,
    recovery,
    reports,
    results,
    schema,
    submission,
    workers,
)
from ndif_batch.queue.cluster import FREE, Cost, DeviceReading
from ndif_batch.queue.cluster_store import ClusterQueue
from ndif_batch.queue.database import Clock, Database, Transaction
from ndif_batch.queue.protocol import MAX_SHARDS, Finished
from ndif_batch.queue.records import (
    Counts,
    EndedJob,
    EventRecord,
    HeartbeatReply,
    JobRecord,
    JobSpec,
    JobState,
    Json,
    Lease,
    ModelRecord,
    ShardRecord,
    TaskFailure,
    WorkerRecord,
)
from ndif_batch.queue.transitions import SYSTEM
from ndif_batch.queue.turns import Turns
from ndif_batch.queue.wishes import load_name, pin_name


class Queue(ClusterQueue):
    """Jobs, shards and leases in one database. Threads may share it; a forked process opens its own.

    Every method is one transaction: all of it happens or none. ``UnavailableError`` if the database cannot serve.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._turns = Turns()

    @classmethod
    def open(cls, url: str, clock: Clock | None = None) -> Self:
        """The queue at ``url``; ``UnavailableError`` with what to do if its schema is missing, old or too new.

        Time is the database's clock unless a test passes a ``clock``.
        """
        schema.require(url)
        return cls(Database(url, clock))

    def close(self) -> None:
        """Close its connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _ending(self) -> Iterator[Transaction]:
        """A transaction that may end jobs; those that come after them begin, or are cancelled, in others.

        Should this process die between them :meth:`settle_dependencies` does it.
        """
        with self._database.write() as tx:
            yield tx
        self._settle(tx.ended)

    def _settle(self, ended: Sequence[int]) -> None:
        while ended:
            with self._database.read() as tx:
                waiting = dependencies.waiting(tx, ended)
            ended = []
            for job_id in waiting:
                with self._database.write() as tx:
                    dependencies.settle(tx, job_id)
                ended += tx.ended

    def settle_dependencies(self) -> None:
        """Let jobs begin, or cancel them, that come after jobs which have ended, where that was not done yet."""
        with self._database.read() as tx:
            ended = dependencies.unsettled(tx)
        self._settle(ended)

    def prerequisite(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` comes after it and may read its results."""
        with self._database.read() as tx:
            return dependencies.prerequisite(tx, job_id, source_id)

    def add_model(self, model: ModelRecord, actor: str = SYSTEM) -> ModelRecord:
        """Register a model, or update where it lies; ``ConflictError`` if its name stands for other weights."""
        with self._database.write() as tx:
            return models.add(tx, model, actor)

    def remove_model(self, name: str, *, actor: str) -> ModelRecord:
        """Let no job name a model any more; ``ConflictError`` while one of it waits or runs. What was saved stays."""
        with self._database.write() as tx:
            return models.remove(tx, name, actor)

    def pin_model(self, name: str, pilots: int, *, actor: str) -> None:
        """Keep so many pilots of a model with and without work; 0 ends that."""
        with self._database.write() as tx:
            models.wish(tx, name, {pin_name(name): pilots}, actor)

    def load_model(self, name: str, *, actor: str) -> None:
        """Start a pilot of a model once, with and without work."""
        with self._database.write() as tx:
            models.wish(tx, name, {load_name(name): True}, actor)

    def models(self) -> list[ModelRecord]:
        """All models by name."""
        with self._database.read() as tx:
            return models.every(tx)

    def model(self, name: str) -> ModelRecord:
        """One model; ``NotFoundError`` with the nearest name if there is none."""
        with self._database.read() as tx:
            return models.get(tx, name)

    def submit(self, spec: JobSpec) -> JobRecord:
        """A new job, or the one that its user submitted under the same key; errors: see :func:`submission.submit`."""
        with self._database.write() as tx:
            return submission.submit(tx, spec)

    def job(self, job_id: int) -> JobRecord:
        """One job; ``NotFoundError`` if there is none."""
        with self._database.read() as tx:
            return jobs.get(tx, job_id)

    def jobs(
        self, user: str | None = None, state: JobState | None = None, limit: int = 100, before: int | None = None
    ) -> list[JobRecord]:
        """Jobs, newest first; ``before`` is the id to go on from."""
        with self._database.read() as tx:
            return reading.newest_jobs(tx, user, state, limit, before)

    def earlier(self, user: str, identity: str) -> list[JobRecord]:
        """The jobs whose results a new one of this user and identity may take, newest first."""
        with self._database.read() as tx:
            return [jobs.get(tx, job_id) for job_id in results.reusable(tx, user, identity)]

    def source(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` may take its results."""
        with self._database.read() as tx:
            return results.source(tx, job_id, source_id)

    def graph(self, digest: str) -> Json:
        """A stored graph as JSON; ``NotFoundError`` if there is none."""
        with self._database.read() as tx:
            return reading.graph_body(tx, digest)

    def cancel(self, job_id: int, actor: str) -> JobRecord:
        """End a job now: its leased shards are taken from their workers. ``ConflictError`` if it has ended."""
        with self._ending() as tx:
            jobs.cancel(tx, job_id, actor)
            return jobs.get(tx, job_id)

    def hold(self, job_id: int, actor: str) -> JobRecord:
        """Lease no more of a job; what is leased goes on. ``ConflictError`` unless it waits or runs."""
        with self._database.write() as tx:
            jobs.hold(tx, job_id, actor)
            return jobs.get(tx, job_id)

    def release(self, job_id: int, actor: str) -> JobRecord:
        """End a hold; ``ConflictError`` if there is none."""
        with self._database.write() as tx:
            jobs.release(tx, job_id, actor)
            return jobs.get(tx, job_id)

    def retry(self, job_id: int, actor: str) -> JobRecord:
        """Run the shards again that failed or hold failed tasks; ``ConflictError`` if there are none."""
        with self._database.write() as tx:
            jobs.retry(tx, job_id, actor)
            return jobs.get(tx, job_id)

    def set_priority(self, job_id: int, priority: int, actor: str) -> JobRecord:
        """Lease a job before those of lower priority; ``NotAllowedError`` for more than its user may give."""
        with self._database.write() as tx:
            jobs.prioritize(tx, job_id, priority, actor)
            return jobs.get(tx, job_id)

    def give_up_results(self, job_id: int, actor: str) -> JobRecord:
        """Let the results of an ended job be deleted; ``NotAllowedError`` unless they are ``actor``'s to give up."""
        with self._database.write() as tx:
            return results.give_up(tx, job_id, actor)

    def results_deleted(self, job_id: int) -> None:
        """The files of given-up results are deleted: they count against no quota any more."""
        with self._database.write() as tx:
            results.deleted(tx, job_id)

    def expire_results(self, actor: str) -> list[int]:
        """Give up the results of jobs that ended longer ago than they are to be kept; which, a hundred at a time."""
        with self._database.read() as tx:
            over = results.expired(tx)
        if not over:
            return over
        with self._database.write() as tx:
            return results.expire(tx, over, actor)

    def tokens_per_second(self, name: str) -> float | None:
        """Tokens that went through the model in a GPU-second of its recent workers; None if it was never measured."""
        with self._database.read() as tx:
            return backlog.speed(tx, name)

    def ended_between(self, after: datetime, until: datetime, limit: int) -> list[JobRecord]:
        """The first ``limit`` jobs that ended after one moment and no later than another, by the time of their end."""
        with self._database.read() as tx:
            return reading.ended_between(tx, after, until, limit)

    def given_up(self) -> list[JobRecord]:
        """The jobs whose results are given up and not known to be deleted."""
        with self._database.read() as tx:
            return results.given_up(tx)

    def shards(self, job_id: int) -> list[ShardRecord]:
        """All shards of a job in order."""
        with self._database.read() as tx:
            return reading.shards(tx, job_id)

    def failures(self, job_id: int, limit: int = 100, after: int = -1) -> list[TaskFailure]:
        """The first ``limit`` failed tasks of a job beyond task ``after``; those of a failed shard tell its reason."""
        with self._database.read() as tx:
            return reading.failures(tx, job_id, limit, after)

    def events(self, job_id: int | None = None, limit: int = 100, before: int | None = None) -> list[EventRecord]:
        """The newest ``limit`` events older than number ``before``, of one job if given, oldest first."""
        with self._database.read() as tx:
            return reading.events(tx, job_id, limit, before)

    def verified(self, job_id: int) -> Verified:
        """What came of running some of a job's tasks again alone, in the shards that are done."""
        with self._database.read() as tx:
            return checks.verified(tx, [job_id])[job_id]

    def workers(self, ids: Collection[int] | None = None) -> list[WorkerRecord]:
        """All workers, or those of these ``ids``, newest first."""
        with self._database.read() as tx:
            return reading.workers(tx, ids)

    def counts(self) -> Counts:
        """The queue in numbers."""
        with self._database.read() as tx:
            return reading.counts(tx)

    def drain_worker(self, worker_id: int, actor: str) -> None:
        """Ask a worker, by its next heartbeat, to finish what it holds and stop."""
        with self._database.write() as tx:
            workers.drain(tx, worker_id, actor)

    def lose_worker(self, worker_id: int, *, died: bool, reason: str, actor: str) -> None:
        """A worker is known to be gone: take its shards back now, counting a death of each if it ``died``."""
        with self._ending() as tx:
            recovery.lose_worker(tx, worker_id, died=died, reason=reason, actor=actor)

    def register_worker(self, model: str, host: str, pid: int, pilot: str | None = None, key: str | None = None) -> int:
        """See :class:`ndif_batch.queue.protocol.WorkerQueue`, as for the methods below."""
        with self._database.write() as tx:
            return workers.register(tx, model, host, pid, pilot, key)

    def lease(
        self,
        worker_id: int,
        model: str,
        max_tokens: int,
        lease_seconds: float,
        max_shards: int = MAX_SHARDS,
        held: Sequence[int] | None = None,
    ) -> list[Lease]:
        """Shards of ``model`` up to ``max_tokens`` tokens together, at least one if any waits."""
        request = leasing.Request(worker_id, model, max_tokens, lease_seconds, max_shards, held)
        with self._database.write() as tx:
            leases = leasing.lease(tx, request, self._turns)
        if leases is not None:
            return leases
        with self._ending() as tx:
            recovery.expire(tx)
        with self._database.write() as tx:
            return leasing.lease(tx, request, self._turns, expired=True) or []

    def heartbeat(
        self,
        worker_id: int,
        lease_seconds: float,
        progress: Mapping[int, int],
        device: DeviceReading | None = None,
    ) -> HeartbeatReply:
        """Renew the leases of all shards that ``progress`` names (shard id → tasks done)."""
        with self._database.write() as tx:
            reply = leasing.heartbeat(tx, worker_id, lease_seconds, progress, device)
            if device is not None and device.measured is not None:
                reports.put(tx, workers.name(worker_id), workers.get(tx, worker_id).model, device.measured)
            return reply

    def commit(self, finished: Sequence[Finished]) -> set[int]:
        """The results of these shards are on disk; ids of those that ended under the caller's lease."""
        with self._ending() as tx:
            return outcomes.commit(tx, finished)

    def fail(self, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost = FREE) -> bool:
        """The whole shard failed. False if the lease is lost."""
        with self._ending() as tx:
            return outcomes.fail(tx, shard_id, epoch, code, message, retryable, cost)

    def give_back(self, shard_id: int, epoch: int) -> bool:
        """Return a shard unfinished, no attempt counted. False if the lease is lost."""
        with self._database.write() as tx:
            return outcomes.give_back(tx, shard_id, epoch)

    def stop_worker(self, worker_id: int) -> None:
        """The worker ends in good order; what it still holds is given back."""
        with self._database.write() as tx:
            recovery.stop_worker(tx, worker_id)

    def has_work(self, model: str) -> bool:
        """Whether a job of ``model`` waits or runs."""
        with self._database.read() as tx:
            return endings.has_work(tx, model)

    def ended(self, job_ids: Sequence[int]) -> list[EndedJob]:
        """Those of the jobs that have ended."""
        with self._database.read() as tx:
            return endings.ended(tx, job_ids)

    def left_over(self, worker_id: int) -> list[EndedJob]:
        """Ended jobs of the worker's model whose archives it may finish if they are not."""
        self.settle_dependencies()
        with self._database.read() as tx:
            return endings.left_over(tx, worker_id)
