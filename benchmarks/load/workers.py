"""Workers as their queue sees them: they lease, and commit what they leased, without a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
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
        """Statements are compiled and prepared when they are first used."""
        for _ in range(6):
            self.commit(self.lease(1))
        self.timed = Timed()

    def lease(self, shards: int | None = None) -> Sequence[Lease]:
        """The next shards of any user."""
        began = perf_counter()
        leases = self._queue.lease(self._id, MODEL.name, ALL, LEASE_SECONDS, shards or self._batch)
        self.timed.leases.append(perf_counter() - began)
        return leases

    def commit(self, leases: Sequence[Lease]) -> None:
        """All of them are done."""
        finished = [Finished(lease.shard.id, lease.shard.epoch, cost=COST) for lease in leases]
        began = perf_counter()
        counted = self._queue.commit(finished)
        self.timed.commits.append(perf_counter() - began)
        assert len(counted) == len(leases)
        self.timed.shards += len(counted)


def busy(url: str, batch: int, start: float, seconds: float) -> Timed:
    """Leases and commits without a pause."""
    worker = Simulated(url, batch)
    worker.warm_up()
    _wait_until(start)
    while time.time() < start + seconds:
        worker.commit(worker.lease())
    return worker.timed


def paced(url: str, batch: int, start: float, seconds: float, workers: int) -> Timed:
    """So many workers that each lease once a second, and before that commit what they leased last."""
    simulated = [Simulated(url, batch) for _ in range(workers)]
    for worker in simulated:
        worker.warm_up()

    def work(number: int) -> Timed:
        held: Sequence[Lease] = ()
        for second in range(int(seconds)):
            _wait_until(start + second + number / workers)
            if held:
                simulated[number].commit(held)
            held = simulated[number].lease()
        simulated[number].commit(held)
        return simulated[number].timed

    with ThreadPoolExecutor(workers) as pool:
        return together(pool.map(work, range(workers)))


def together(parts: Iterable[Timed]) -> Timed:
    """The sum of what several workers timed."""
    whole = Timed()
    for part in parts:
        whole.add(part)
    return whole


def in_processes(count: int, run: Callable[..., Timed], starting: float, *arguments: object) -> Timed:
    """``run(url, batch, start, seconds, …)`` in so many processes that begin at one moment."""
    url, batch, seconds, *more = arguments
    start = time.time() + starting
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(run, url, batch, start, seconds, *more) for _ in range(count)]
        return together(job.result() for job in jobs)


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
