"""Runs leased shards through the engine, many jobs in one call, and takes the outcomes as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import structlog
from structlog.contextvars import bound_contextvars

from ndif_batch.errors import NdifBatchError, UnavailableError, UsageError
from ndif_batch.queue.cluster import FREE
from ndif_batch.queue.records import Lease
from ndif_batch.worker.call import Call
from ndif_batch.worker.checking import Checks
from ndif_batch.worker.committing import Committer, Complete
from ndif_batch.worker.ending import Draining
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import Counted, OpenJobs
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.ports import Outcome, TaskEngine
from ndif_batch.worker.prerequisites import Prerequisites
from ndif_batch.worker.progress import Tally
from ndif_batch.worker.reuse import Reuse
from ndif_batch.worker.work import ShardWork
from ndif_batch.worker.writer import Writer

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Runner:
    """Runs shards; complete ones go to ``writer``. What goes wrong in one job does not take down the others."""

    def __init__(
        self,
        engine: TaskEngine,
        jobs: OpenJobs,
        heart: Heartbeat,
        meter: Meter,
        draining: Draining,
        committer: Committer,
        reuse: Reuse,
        prerequisites: Prerequisites,
        checks: Checks | None,
        tally: Tally,
    ) -> None:
        self.writer = Writer(committer.write, committer.commit, lambda shard: shard.work.nbytes)
        self._engine = engine
        self._jobs = jobs
        self._heart = heart
        self._meter = meter
        self._draining = draining
        self._committer = committer
        self._reuse = reuse
        self._prerequisites = prerequisites
        self._checks = checks
        self._tally = tally
        self._batches = 0
        self._left = 0
        self._on_left: Callable[[int], None] = lambda tokens: None

    def open(self, leases: Sequence[Lease]) -> list[ShardWork]:
        """Shards that are ready to run. Those that earlier jobs have saved are on their way already.

        Another thread than the one that runs shards may do it.
        """
        return [work for lease in leases if (work := self._opened(lease)) is not None and not self._is_complete(work)]

    def run(
        self,
        works: Sequence[ShardWork],
        on_left: Callable[[int], None] = lambda tokens: None,
        further: Callable[[], Sequence[ShardWork]] = tuple,
    ) -> None:
        """Run what is ready, as far as draining allows; ``on_left`` hears how many tokens are left, as that changes.

        ``further`` gives what has become ready meanwhile: the engine goes on with it without a pause.
        """
        self._meter.begin()
        self._on_left, self._left = on_left, 0
        waiting = self._joined(works)

        def more() -> Sequence[ShardWork]:
            if waiting or self._draining.begun:
                return ()
            ready = self._joined(further())
            together = ready.pop(0) if ready and ready[0][0].job.shares else ()
            waiting.extend(ready)
            return together

        while waiting and not self._draining.begun:
            together = waiting.pop(0)
            self._run(together, more if together[0].job.shares else tuple)

    def _opened(self, lease: Lease) -> ShardWork | None:
        try:
            return ShardWork(lease, self._jobs.open(lease.job, self._prerequisites.tensors))
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 -- one job that cannot be read must not stop those of others
            self._committer.fail(lease, error, retryable=False)
            return None

    def _is_complete(self, work: ShardWork) -> bool:
        """Whether earlier jobs have saved the whole shard, which is then on its way; what else they have is in it."""
        if self._draining.begun:
            return False
        self._reuse.fill(work)
        if work.reused:
            self._heart.progress(work.shard.id, work.shard.tasks - work.missing)
            self._tally.reused(work.reused)
            self._meter.gauge.count("reused", work.reused)
        if not work.missing:
            self.writer.put(Complete(work, FREE, Counted.now(self._engine.counters)))
        return not work.missing

    def _joined(self, works: Sequence[ShardWork]) -> list[list[ShardWork]]:
        """Shards as the calls of the engine take them; those that may share with others come first."""
        held = [work for work in works if self._heart.holds(work.shard.id)]
        self._left += sum(work.missing * work.job.record.tokens_per_task for work in held)
        self._on_left(self._left)
        return calls(held)

    def _run(self, works: Sequence[ShardWork], further: Callable[[], Sequence[ShardWork]] = tuple) -> None:
        """Run what is missing of some shards in one call; should the call fail, once more job by job."""
        call = Call(works, further, lambda: self._count_call(call))
        self._batches += 1
        try:
            with bound_contextvars(batch=self._batches):
                for work, place, outcome in self._outcomes(call):
                    if self._heart.holds(work.shard.id):
                        self._take(work, place, outcome)
                    if self._draining.is_over():
                        return
        except _CallFailedError as failure:
            self._after_failure(call.works, failure.error)
            return
        if self._draining.begun:
            return
        for work in self._unfinished(call.works):
            missing = NdifBatchError(f"the engine gave no outcome for {work.missing} tasks")
            self._committer.fail(work.lease, missing, retryable=True)

    def _outcomes(self, call: Call) -> Iterator[tuple[ShardWork, int, Outcome]]:
        job = call.works[0].job
        try:
            run = self._engine.run(call.tasks(), nan=job.nan, layout=job.layout, constants=call.constants)
            for outcome in self._meter.call(run):
                yield *call.place(outcome.index), outcome
        except Exception as error:
            raise _CallFailedError(error) from error

    def _count_call(self, call: Call) -> None:
        self._jobs.count_call(call.works, Counted.now(self._engine.counters))

    def _take(self, work: ShardWork, place: int, outcome: Outcome) -> None:
        work.take(place, outcome)
        for name, text in outcome.prints:
            log.info("task.log", job=work.job.record.id, task=work.shard.first_task + place, name=name, value=text)
        self._count(work.job.record.tokens_per_task)
        self._heart.progress(work.shard.id, work.shard.tasks - work.missing)
        self._tally.task(failed=outcome.error is not None)
        self._meter.gauge.count("saved" if outcome.error is None else "failed")
        if not work.missing:
            check = self._checks.check(work) if self._checks and not self._draining.begun else None
            cost = self._meter.take(len(work.ran) * work.job.record.tokens_per_task)
            self.writer.put(Complete(work, cost, Counted.now(self._engine.counters), check))

    def _count(self, tokens: int) -> None:
        """A task of so many tokens has its outcome."""
        self._meter.arrived(tokens)
        self._left -= tokens
        self._on_left(self._left)

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
                    self._committer.fail(work.lease, error, retryable=not isinstance(error, UsageError))

    def _unfinished(self, works: Sequence[ShardWork]) -> list[ShardWork]:
        return [work for work in works if work.missing and self._heart.holds(work.shard.id)]


def calls(works: Sequence[ShardWork]) -> list[list[ShardWork]]:
    """Which shards one call of the engine runs: first all that may share, then each job that may not by itself."""
    together: dict[int | None, list[ShardWork]] = {}
    for work in sorted(works, key=lambda work: not work.job.shares):
        together.setdefault(None if work.job.shares else work.job.record.id, []).append(work)
    return list(together.values())


class _CallFailedError(Exception):
    """The engine raised in place of giving outcomes."""

    def __init__(self, error: Exception) -> None:
        self.error = error
