"""The loop of a worker: lease shards of many jobs that can end in time, run them, until it drains or has no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.queue.records import Lease
from ndif_batch.worker.committing import Committer
from ndif_batch.worker.ending import Draining, Until
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.ports import TaskEngine
from ndif_batch.worker.progress import Progress, Tally
from ndif_batch.worker.reuse import Reuse
from ndif_batch.worker.running import Runner
from ndif_batch.worker.walltime import Walltime

POLL_SECONDS = 0.25


class Worker:
    """Drains the shards of one model. Whatever stops it, what it holds goes back to the queue."""

    def __init__(
        self,
        queue: WorkerQueue,
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
        patience = patience or Patience()
        self._queue = queue
        self._heart = heart
        self._model = model
        self._max_tokens = max_tokens
        self._ask = patience.ask
        self._walltime = walltime or Walltime()
        self._meter = meter or Meter(engine.counters)
        self._clock = clock
        self._tally = Tally(on_progress)
        self._draining = Draining(heart.draining, self._walltime, clock)
        self._committer = Committer(queue, jobs, heart, patience, engine.counters, self._tally)
        reuse = Reuse(lambda job_id, source_id: patience.ask(lambda: queue.source(job_id, source_id)))
        self._runner = Runner(engine, jobs, heart, self._meter, self._draining, self._committer, reuse, self._tally)

    def run(self, until: Until) -> Progress:
        """Work until asked to drain or until ``until`` says so.

        Raises ``UnavailableError`` when the archive's disk, or for longer than its patience the queue, cannot serve.
        """
        self._committer.finish_what_others_left()
        with self._runner.writer:
            self._drain_shards(until)
        return self._tally.progress

    def _drain_shards(self, until: Until) -> None:
        last_work = self._clock()
        while not self._draining.begun:
            leases = self._lease()
            if leases:
                self._runner.run(leases)
                last_work = self._clock()
            else:
                self._runner.writer.flush()
            if until.one or (not leases and self._is_over(until, self._clock() - last_work)):
                return
            if not leases:
                self._draining.wait(POLL_SECONDS)

    def _lease(self) -> Sequence[Lease]:
        """Shards that can end before the walltime. If the next one cannot it goes back, and the worker ends."""
        speed = self._meter.tokens_per_second
        room = self._walltime.tokens(speed, self._max_tokens)
        leases = self._ask(lambda: self._heart.lease(self._model, room)) if room else ()
        first = leases[0].shard.tasks * leases[0].job.tokens_per_task if leases else 0
        if room and self._walltime.holds(first, speed):
            return leases
        for lease in leases:
            self._committer.give_back(lease)
        self._draining.begin()
        return ()

    def _is_over(self, until: Until, idle_seconds: float) -> bool:
        if until.idle_seconds is not None and idle_seconds >= until.idle_seconds:
            return True
        return until.idle and not self._ask(lambda: self._queue.has_work(self._model))
