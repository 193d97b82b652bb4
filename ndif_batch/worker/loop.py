"""The loop of a worker: while a round of shards runs the next is leased, until it drains or there are no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import structlog

from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.worker.ahead import Ahead
from ndif_batch.worker.busy import Busy
from ndif_batch.worker.checking import Checks
from ndif_batch.worker.committing import Committer
from ndif_batch.worker.ending import Draining, Until
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.leasing import Leased, Leasing
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.ports import TaskEngine
from ndif_batch.worker.prerequisites import Prerequisites
from ndif_batch.worker.progress import Progress, Tally
from ndif_batch.worker.reuse import Reuse
from ndif_batch.worker.running import Runner
from ndif_batch.worker.walltime import Walltime
from ndif_batch.worker.work import ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()

SHORTEST_WAIT, LONGEST_WAIT = 0.1, 1.0
"""Seconds between two looks for work."""


@dataclass(frozen=True, slots=True)
class Round:
    """Shards that are ready to run; ``more`` says that the queue may have more."""

    works: Sequence[ShardWork]
    more: bool


class Worker:
    """Drains the shards of one model. Whatever stops it, what it holds goes back to the queue.

    A round has at most ``max_tokens`` tokens. When ``ahead_tokens`` of it are left (None: from its beginning) the next
    is leased, if the queue may have more. ``alone`` is the engine that runs a sample of the tasks again; without it
    none is. ``between_calls`` is done when a round has ended and no pass waits.
    """

    def __init__(
        self,
        queue: WorkerQueue,
        engine: TaskEngine,
        jobs: OpenJobs,
        heart: Heartbeat,
        *,
        model: str,
        max_tokens: int,
        alone: TaskEngine | None = None,
        ahead_tokens: int | None = None,
        patience: Patience | None = None,
        walltime: Walltime | None = None,
        meter: Meter | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        between_calls: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        patience, walltime = patience or Patience(), walltime or Walltime()
        meter = meter or Meter(engine.counters)
        self._queue = queue
        self._model = model
        self._ahead_tokens = ahead_tokens
        self._ask = patience.ask
        self._between_calls = between_calls
        self._clock = clock
        self._busy = Busy(meter)
        self._tally = Tally(on_progress)
        self._asked = heart.draining
        self._draining = Draining(heart.draining, walltime, clock)
        self._committer = Committer(queue, jobs, heart, patience, engine.counters, self._tally)
        self._leasing = Leasing(heart, self._committer, patience, meter, walltime, model, max_tokens)
        reuse = Reuse(lambda job_id, source_id: patience.ask(lambda: queue.source(job_id, source_id)))
        before = Prerequisites(lambda job_id, source_id: patience.ask(lambda: queue.prerequisite(job_id, source_id)))
        checks = None if alone is None else Checks(alone, meter)
        self._runner = Runner(
            engine, jobs, heart, meter, self._draining, self._committer, reuse, before, checks, self._tally
        )
        self._ahead: Ahead[Round | None] = Ahead()

    def run(self, until: Until) -> Progress:
        """Work until asked to drain or until ``until`` says so; once.

        Raises ``UnavailableError`` when the archive's disk, or for longer than its patience the queue, cannot serve.
        """
        self._committer.finish_what_others_left()
        with self._runner.writer, self._ahead:
            self._drain_shards(until)
        ended = self._asked.reason or ("its round is over" if until.one else "there was no more work")
        progress = replace(self._tally.progress, busy=self._busy.share, ended=ended)
        log.info("worker.busy", share=None if progress.busy is None else round(progress.busy, 3))
        return progress

    def _drain_shards(self, until: Until) -> None:
        last_work, may_lease = self._clock(), True
        while not self._draining.begun:
            ready = self._ahead.take() or (self._lease() if may_lease else None)
            if ready is not None:
                self._run(ready, ahead=not until.one)
                last_work = self._clock()
            else:
                self._runner.writer.flush()
            idle_seconds = self._clock() - last_work
            if until.one or (ready is None and self._is_over(until, idle_seconds)):
                return
            if ready is None:
                with self._busy.waiting():
                    self._draining.wait(pause(idle_seconds))
                may_lease = self._ask(lambda: self._queue.has_work(self._model))

    def _run(self, ready: Round, *, ahead: bool) -> None:
        """Run a round, and without a pause those that are there in time."""
        more = ready.more

        def on_left(tokens: int) -> None:
            near = self._ahead_tokens is None or tokens <= self._ahead_tokens
            if ahead and more and near and not self._draining.begun:
                self._ahead.begin(lambda: self._opened(self._leasing.ahead(tokens)))

        def further() -> Sequence[ShardWork]:
            nonlocal more
            following = self._ahead.take() if self._ahead.ready else None
            if following is None:
                return ()
            more = following.more
            return following.works

        self._runner.run(ready.works, on_left, further)
        self._between_calls()

    def _lease(self) -> Round | None:
        """What waits now. If nothing more can end before the walltime, the worker ends."""
        leased = self._leasing.now()
        if leased is None:
            self._draining.begin("nothing that waits would end before its walltime")
            return None
        return self._opened(leased)

    def _opened(self, leased: Leased) -> Round | None:
        return Round(self._runner.open(leased.leases), leased.more) if leased.leases else None

    def _is_over(self, until: Until, idle_seconds: float) -> bool:
        if until.idle_seconds is not None and idle_seconds >= until.idle_seconds:
            return True
        return until.idle and not self._ask(lambda: self._queue.has_work(self._model))


def pause(idle_seconds: float) -> float:
    """How long a worker that has been idle so long waits until it looks again: as long again, within bounds."""
    return min(LONGEST_WAIT, max(SHORTEST_WAIT, idle_seconds))
