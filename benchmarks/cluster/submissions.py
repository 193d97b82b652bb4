"""The cluster without pilots: one Slurm job for each submission, which loads its own copy of the model."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import ceil

from cluster.pilots import START_SECONDS, fair
from cluster.record import BIN, Record
from cluster.workload import Job
from ndif_batch.scheduling import ordered

ELEMENT_SECONDS = 3600.0
"""A job longer than this is an array of elements no longer than this."""
CYCLE_SECONDS = 10.0


class SubmissionCluster:
    """Simulates a day of Slurm jobs in the same fair-share order; smaller jobs go past one that does not fit."""

    def __init__(self, jobs: Sequence[Job], gpus: int) -> None:
        self._jobs, self._free = jobs, gpus
        self.record = Record(gpus, jobs)
        self._elements = {job.id: ceil(job.seconds / ELEMENT_SECONDS) for job in jobs}
        self._left = dict(self._elements)
        self._undone = dict(self._elements)
        self._usage: dict[str, float] = defaultdict(float)
        self._served: dict[str, float] = defaultdict(float)
        self._queue: dict[str, deque[Job]] = {}
        self._running: list[tuple[float, int, Job]] = []
        self._numbers = count()

    def run(self) -> Record:
        """Until every job has ended."""
        coming, now = deque(self._jobs), 0.0
        while coming or self._queue or self._running:
            while coming and coming[0].submitted <= now:
                job = coming.popleft()
                self._queue.setdefault(job.user, deque()).append(job)
            while self._running and self._running[0][0] <= now:
                self._end(*heappop(self._running))
            while self._free and self._queue and self._cycle(now):
                pass
            if now % BIN == 0:
                self.record.sample(now, self._queue)
            now += CYCLE_SECONDS
        return self.record

    def _cycle(self, now: float) -> bool:
        """Start at most one element of each user; whether any was."""
        heads = (jobs[0] for jobs in self._queue.values())
        started = False
        for one in ordered((fair(job, 1, now, self._served[job.user]) for job in heads), self._usage, {}):
            job = self._jobs[one.job_id]
            if job.model.gpus <= self._free:
                self._start(job, now)
                started = True
            if not self._free:
                break
        return started

    def _start(self, job: Job, now: float) -> None:
        gpus, load = job.model.gpus, START_SECONDS + job.model.load_seconds
        loaded = now + load
        end = loaded + job.seconds / self._elements[job.id]
        self._free -= gpus
        self._left[job.id] -= 1
        if not self._left[job.id]:
            self._queue[job.user].popleft()
        if not self._queue[job.user]:
            del self._queue[job.user]
        self._usage[job.user] += (end - now) * gpus
        self._served[job.user] = now
        self.record.began.setdefault(job.id, loaded)
        self.record.hold(now, end, gpus)
        self.record.work(job.user, loaded, end, gpus)
        self.record.loads += 1
        self.record.load_gpu_seconds += load * gpus
        heappush(self._running, (end, next(self._numbers), job))

    def _end(self, end: float, _: int, job: Job) -> None:
        self._free += job.model.gpus
        self._undone[job.id] -= 1
        if not self._undone[job.id]:
            self.record.ended[job.id] = end
