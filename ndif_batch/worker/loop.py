"""The loop of a worker: lease shards of many jobs, run their tasks together, write whole shards, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from time import monotonic

import structlog

from ndif_batch.errors import NdifBatchError, UnavailableError, UsageError
from ndif_batch.queue.cluster import FREE
from ndif_batch.queue.records import JobRecord, JobState, Lease
from ndif_batch.worker.committing import Committer, Complete
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import Counted, OpenJobs
from ndif_batch.worker.leftovers import left_over
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.ports import JobQueue, Outcome, TaskEngine
from ndif_batch.worker.reuse import Reuse
from ndif_batch.worker.walltime import Walltime
from ndif_batch.worker.work import ShardWork
from ndif_batch.worker.writer import Writer

log: structlog.stdlib.BoundLogger = structlog.get_logger()

POLL_SECONDS = 0.25
DRAIN_SECONDS = 2.0
"""How long a draining worker goes on taking outcomes after the first that it gets: those of the same pass."""
PAGE = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker has done since it began; failed tasks are done too, and those that were re-used."""

    tasks_done: int = 0
    tasks_failed: int = 0
    shards_done: int = 0
    tasks_reused: int = 0


@dataclass(frozen=True, slots=True)
class Until:
    """When a worker ends by itself: after ``one`` round, when no job of its model is left, after some idle time."""

    one: bool = False
    idle: bool = False
    idle_seconds: float | None = None


class Worker:
    """Drains the shards of one model. Whatever stops it, what it holds goes back to the queue."""

    def __init__(
        self,
        queue: JobQueue,
        engine: TaskEngine,
        jobs: OpenJobs,
        heart: Heartbeat,
        *,
        model: str,
        max_tokens: int,
        patience: Patience | None = None,
        walltime: Walltime | None = None,
        meter: Meter | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._queue = queue
        self._engine = engine
        self._jobs = jobs
        self._heart = heart
        self._model = model
        self._max_tokens = max_tokens
        self._ask = (patience or Patience()).ask
        self._reuse = Reuse(lambda job_id: self._ask(lambda: queue.job(job_id)))
        self._walltime = walltime or Walltime()
        self._meter = meter or Meter(engine.counters)
        self._on_progress = on_progress
        self._clock = clock
        self._deadline: float | None = None
        self._committer = Committer(queue, heart, jobs, self._ask, self._shards_done)
        self._writer = Writer(self._committer.write, self._committer.commit)
        self._counting = Lock()
        self.progress = Progress()

    def run(self, until: Until) -> Progress:
        """Work until asked to drain or until ``until`` says so.

        Raises ``UnavailableError`` when the archive's disk, or for longer than its patience the queue, cannot serve.
        """
        self._finish_what_others_left()
        with self._writer:
            self._drain_shards(until)
        return self.progress

    def _drain_shards(self, until: Until) -> None:
        last_work = self._clock()
        while not self._is_draining():
            leases = self._lease()
            if leases:
                self._work(leases)
                last_work = self._clock()
            else:
                self._writer.flush()
            if until.one or (not leases and self._is_over(until, self._clock() - last_work)):
                return
            if not leases:
                self._heart.draining.wait(POLL_SECONDS)

    def _lease(self) -> Sequence[Lease]:
        """Shards that can end before the walltime. If the next one cannot it goes back, and the worker ends."""
        speed = self._meter.tokens_per_second
        room = self._walltime.tokens(speed, self._max_tokens)
        leases = self._ask(lambda: self._heart.lease(self._model, room)) if room else ()
        first = leases[0].shard.tasks * leases[0].job.tokens_per_task if leases else 0
        if room and self._walltime.holds(first, speed):
            return leases
        for lease in leases:
            self._give_back(lease)
        self._heart.draining.set()
        return ()

    def _give_back(self, lease: Lease) -> None:
        self._ask(lambda: self._queue.give_back(lease.shard.id, lease.shard.epoch))
        self._heart.release(lease.shard.id)

    def _is_over(self, until: Until, idle_seconds: float) -> bool:
        if until.idle_seconds is not None and idle_seconds >= until.idle_seconds:
            return True
        return until.idle and not any(
            job.model == self._model for state in (JobState.PENDING, JobState.RUNNING) for job in self._all_jobs(state)
        )

    def _work(self, leases: Sequence[Lease]) -> None:
        self._meter.begin()
        works = [work for lease in leases if (work := self._opened(lease)) is not None and not self._is_complete(work)]
        for together in calls(works):
            if not self._is_draining():
                self._run(together)

    def _opened(self, lease: Lease) -> ShardWork | None:
        try:
            return ShardWork(lease, self._jobs.open(lease.job))
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 -- one job that cannot be read must not stop those of others
            self._fail(lease, error, retryable=False)
            return None

    def _is_complete(self, work: ShardWork) -> bool:
        """Whether earlier jobs have saved the whole shard, which is then on its way; what else they have is in it."""
        if self._is_draining():
            return False
        self._reuse.fill(work)
        if work.reused:
            self._heart.progress(work.shard.id, work.reused)
            self._count(tasks_done=work.reused, tasks_reused=work.reused)
        if not work.missing:
            self._writer.put(Complete(work, FREE, Counted.now(self._engine.counters)))
        return not work.missing

    def _run(self, works: Sequence[ShardWork]) -> None:
        """Run what is missing of some shards in one call; should the call fail, once more job by job."""
        try:
            for work, place, outcome in self._outcomes(works):
                if self._heart.holds(work.shard.id):
                    self._take(work, place, outcome)
                if self._must_stop():
                    return
        except _CallFailedError as failure:
            self._after_failure(works, failure.error)
            return
        for work in self._unfinished(works):
            missing = NdifBatchError(f"the engine gave no outcome for {work.missing} tasks")
            self._fail(work.lease, missing, retryable=True)

    def _outcomes(self, works: Sequence[ShardWork]) -> Iterator[tuple[ShardWork, int, Outcome]]:
        places = [(work, place) for work in works for place in work.waiting]
        tasks = [work.task(place) for work, place in places]
        constants = {digest: tensor for work in works for digest, tensor in work.job.constants.items()}
        job = works[0].job
        self._jobs.count_call(works, Counted.now(self._engine.counters))
        try:
            run = self._engine.run(tasks, nan=job.nan, layout=job.layout, constants=constants)
            for outcome in self._meter.call(run):
                yield *places[outcome.index], outcome
        except Exception as error:
            raise _CallFailedError(error) from error

    def _take(self, work: ShardWork, place: int, outcome: Outcome) -> None:
        work.take(place, outcome)
        for name, text in outcome.prints:
            log.info("task.log", job=work.job.record.id, task=work.shard.first_task + place, name=name, value=text)
        self._meter.arrived(work.job.record.tokens_per_task)
        done = work.shard.tasks - work.missing
        self._heart.progress(work.shard.id, done)
        self._count(tasks_done=1, tasks_failed=int(outcome.error is not None))
        if not work.missing:
            cost = self._meter.take((work.shard.tasks - work.reused) * work.job.record.tokens_per_task)
            self._writer.put(Complete(work, cost, Counted.now(self._engine.counters)))

    def _after_failure(self, works: Sequence[ShardWork], error: Exception) -> None:
        unfinished = self._unfinished(works)
        by_job: dict[int, list[ShardWork]] = {}
        for work in unfinished:
            by_job.setdefault(work.job.record.id, []).append(work)
        for alone in by_job.values():
            if len(by_job) > 1:
                self._run(alone)
            else:
                for work in alone:
                    self._fail(work.lease, error, retryable=not isinstance(error, UsageError))

    def _fail(self, lease: Lease, error: Exception, *, retryable: bool) -> None:
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
        self._committer.finish_if_over(lease.job.id, Counted.now(self._engine.counters))

    def _unfinished(self, works: Sequence[ShardWork]) -> list[ShardWork]:
        return [work for work in works if work.missing and self._heart.holds(work.shard.id)]

    def _is_draining(self) -> bool:
        if self._walltime.over:
            self._heart.draining.set()
        return self._heart.draining.is_set()

    def _must_stop(self) -> bool:
        if not self._is_draining():
            return False
        if self._deadline is None:
            self._deadline = self._clock() + DRAIN_SECONDS
        return self._clock() >= self._deadline

    def _finish_what_others_left(self) -> None:
        ended = [
            record
            for state in (JobState.COMPLETED, JobState.FAILED)
            for record in self._ask(partial(self._queue.jobs, state=state, limit=PAGE))
        ]
        for record in left_over(ended, self._ask(self._queue.workers), self._heart.worker_id):
            self._jobs.close(record, Counted.now(self._engine.counters))

    def _all_jobs(self, state: JobState) -> Iterator[JobRecord]:
        before: int | None = None
        while page := self._ask(partial(self._queue.jobs, state=state, limit=PAGE, before=before)):
            yield from page
            before = page[-1].id

    def _shards_done(self, count: int) -> None:
        self._count(shards_done=count)

    def _count(
        self, *, tasks_done: int = 0, tasks_failed: int = 0, tasks_reused: int = 0, shards_done: int = 0
    ) -> None:
        with self._counting:
            self.progress = replace(
                self.progress,
                tasks_done=self.progress.tasks_done + tasks_done,
                tasks_failed=self.progress.tasks_failed + tasks_failed,
                tasks_reused=self.progress.tasks_reused + tasks_reused,
                shards_done=self.progress.shards_done + shards_done,
            )
            self._on_progress(self.progress)


def calls(works: Sequence[ShardWork]) -> list[list[ShardWork]]:
    """Which shards one call of the engine runs: all that may share, and each job that may not by itself."""
    together: dict[int | None, list[ShardWork]] = {}
    for work in works:
        together.setdefault(None if work.job.shares else work.job.record.id, []).append(work)
    return list(together.values())


class _CallFailedError(Exception):
    """The engine raised in place of giving outcomes."""

    def __init__(self, error: Exception) -> None:
        self.error = error
