"""Workers as their queue sees them: they lease, and commit what they leased, without a model."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    """Seconds of each lease and each commit, how late a worker came to its turn, and the shards that were committed."""

    leases: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    shards: int = 0

    def add(self, other: Timed) -> None:
        self.leases += other.leases
        self.commits += other.commits
        self.late += other.late
        self.shards += other.shards


class Simulated:
    """One worker."""

    def __init__(self, queue: Queue, batch: int) -> None:
        self._queue = queue
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
    worker = Simulated(Queue.open(url), batch)
    worker.warm_up()
    _wait_until(start)
    while time.time() < start + seconds:
        worker.commit(worker.lease())
    return worker.timed


def paced(url: str, batch: int, start: float, seconds: float, workers: int) -> Timed:
    """So many workers that each lease once a second, and before that commit what they leased last.

    Each has its own moments. They share a connection, as behind a server, and may come late to their turns.
    """
    queue = Queue.open(url)
    simulated = [Simulated(queue, batch) for _ in range(workers)]
    for worker in simulated:
        worker.warm_up()
    draw = random.Random()
    moments = [(second + draw.random(), number) for second in range(int(seconds)) for number in range(workers)]
    held: dict[int, Sequence[Lease]] = {}
    late = []
    for moment, number in sorted(moments):
        _wait_until(start + moment)
        late.append(time.time() - start - moment)
        if number in held:
            simulated[number].commit(held[number])
        held[number] = simulated[number].lease()
    for number, leases in held.items():
        simulated[number].commit(leases)
    return together([worker.timed for worker in simulated] + [Timed(late=late)])


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
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        jobs = [pool.submit(run, url, batch, start, seconds, *more) for _ in range(count)]
        return together(job.result() for job in jobs)


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))
