"""Workers as their queue sees them: they lease, and commit what they leased, without a model."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from threading import Barrier
from time import perf_counter

from load.filling import MODEL, TASKS, TOKENS
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import Lease

COST = Cost(gpu_seconds=0.05, tokens=TASKS * TOKENS)
LEASE_SECONDS = 60.0
ALL = 10**9


@dataclass(slots=True)
class Timed:
    """Seconds of each lease and each commit, and the shards that were committed."""

    leases: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    shards: int = 0

    def add(self, other: Timed) -> None:
        self.leases += other.leases
        self.commits += other.commits
        self.shards += other.shards


class Simulated:
    """One worker with a connection of its own."""

    def __init__(self, url: str, batch: int) -> None:
        self._queue = Queue.open(url)
        self._batch = batch
        self._id = self._queue.register_worker(MODEL.name, "here", 1)
        self.timed = Timed()

    def warm_up(self) -> None:
        """Statements are compiled and prepared when they are first used; those for one shard are others."""
        for shards in (1, self._batch) * 3:
            self.commit(self.lease(shards))
        self.timed = Timed()

    def lease(self, shards: int | None = None) -> Sequence[Lease]:
        """The next shards of any user."""
        began = perf_counter()
        leases = self._queue.lease(self._id, MODEL.name, ALL, LEASE_SECONDS, shards or self._batch)
        self.timed.leases.append(perf_counter() - began)
        return leases

    def commit(self, leases: Sequence[Lease]) -> None:
        """All of them are done."""
        if not leases:
            return
        finished = [Finished(lease.shard.id, lease.shard.epoch, cost=COST) for lease in leases]
        began = perf_counter()
        counted = self._queue.commit(finished)
        self.timed.commits.append(perf_counter() - began)
        assert len(counted) == len(leases)
        self.timed.shards += len(counted)

    def stop(self) -> None:
        """A worker that went on without a word would be noticed as lost by the next ones."""
        self._queue.stop_worker(self._id)
        self._queue.close()


def busy(ready: Barrier, url: str, batch: int, seconds: float) -> Timed:
    """Leases and commits without a pause."""
    worker = Simulated(url, batch)
    worker.warm_up()
    ready.wait()
    end = perf_counter() + seconds
    while perf_counter() < end:
        worker.commit(worker.lease())
    worker.stop()
    return worker.timed


def paced(ready: Barrier, url: str, batch: int, seconds: float, workers: int) -> Timed:
    """So many workers, each with a connection of its own, that lease once a second.

    Before a lease each commits what it leased last; each has its own moment in every second.
    """
    simulated = [Simulated(url, batch) for _ in range(workers)]
    for worker in simulated:
        worker.warm_up()
    ready.wait()
    start = perf_counter()

    def work(worker: Simulated, phase: float) -> None:
        held: Sequence[Lease] = ()
        for second in range(int(seconds)):
            time.sleep(max(0.0, start + second + phase - perf_counter()))
            worker.commit(held)
            held = worker.lease()
        worker.commit(held)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, simulated, [random.random() for _ in simulated]))
    for worker in simulated:
        worker.stop()
    return together(worker.timed for worker in simulated)


def together(parts: Iterable[Timed]) -> Timed:
    """The sum of what several workers timed."""
    whole = Timed()
    for part in parts:
        whole.add(part)
    return whole


def in_processes(count: int, run: Callable[..., Timed], *arguments: object) -> Timed:
    """``run(ready, *arguments)`` in so many processes, which begin together when all of them are ready."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        ready = manager.Barrier(count)
        jobs = [pool.submit(run, ready, *arguments) for _ in range(count)]
        return together(job.result() for job in jobs)
