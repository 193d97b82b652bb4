"""The cluster with pilots, driven by the policy and the autoscaler themselves."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import Protocol

from cluster.record import BIN, Record
from cluster.workload import SHARD_SECONDS, TOKENS_PER_SECOND, Job, Model
from ndif_batch.scheduling import (
    Backlog,
    Candidate,
    Limits,
    PilotPhase,
    PilotView,
    charge,
    choose,
    ordered,
    pilots_wanted,
)

START_SECONDS = 15.0
"""From the decision to a running Python on a free node."""
TICK_SECONDS = 30.0
LEASE_SHARDS = 4
NEXT_USERS = 16
"""Users whose oldest jobs a lease looks at, as a queue does that keeps the order in an index."""


class Order(Protocol):
    """How waiting jobs become candidates of the policy."""

    def __call__(self, job: Job, left: int, now: float, served: float) -> Candidate: ...


def fair(job: Job, left: int, now: float, served: float) -> Candidate:
    """The policy as it is."""
    age = now - max(job.submitted, served)
    return Candidate(job_id=job.id, user=job.user, tokens=job.tokens, shards=left, age_seconds=age)


def first_come(job: Job, left: int, now: float, served: float) -> Candidate:
    """First come, first served: everybody is one user, and age decides."""
    return Candidate(job_id=job.id, user="all", tokens=job.tokens, shards=left, age_seconds=now - job.submitted)


@dataclass(slots=True, eq=False)
class Pilot:
    """A pilot and what it holds: (job, shards) of its lease."""

    name: str
    model: Model
    started: float
    ends: float
    idle_since: float | None = None
    draining: bool = False
    loading: bool = True
    lease: list[tuple[Job, int]] = field(default_factory=list)

    def view(self) -> PilotView:
        """As the autoscaler sees it."""
        return PilotView(
            name=self.name,
            model=self.model.name,
            phase=PilotPhase.DRAINING if self.draining else PilotPhase.RUNNING,
            gpus=self.model.gpus,
            started_at=self.started,
            idle_since=self.idle_since,
            ends_at=self.ends,
        )


@dataclass(slots=True)
class Waiting:
    """Shards of one model that wait: each user's jobs in order of submission, and the users who are next."""

    model: Model
    jobs: dict[str, deque[Job]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    leased: float = 0.0
    measured: bool = False
    following: list[str] = field(default_factory=list)

    def backlog(self, now: float) -> Backlog:
        """As the autoscaler sees it."""
        oldest = min((jobs[0].submitted for jobs in self.jobs.values()), default=now)
        return Backlog(
            tokens=self.tokens,
            shards=self.shards,
            oldest_seconds=now - oldest,
            waited_seconds=now - max(oldest, self.leased),
            tokens_per_second=TOKENS_PER_SECOND if self.measured else None,
            load_seconds=START_SECONDS + self.model.load_seconds,
            gpus=self.model.gpus,
        )


class PilotCluster:
    """Simulates a day with pilots; ``order`` makes the candidates that the policy sees."""

    def __init__(self, jobs: Sequence[Job], limits: Limits, order: Order) -> None:
        self._jobs, self._limits, self._order = jobs, limits, order
        self.record = Record(limits.gpus, jobs)
        self._left = {job.id: job.shards for job in jobs}
        self._undone = dict(self._left)
        self._usage: dict[str, float] = defaultdict(float)
        self._served: dict[str, float] = defaultdict(float)
        self._waiting: dict[str, Waiting] = {}
        self._pilots: dict[str, Pilot] = {}
        self._idle: dict[str, dict[str, Pilot]] = defaultdict(dict)
        self._events: list[tuple[float, int, Job | Pilot | None]] = []
        self._numbers = count()

    def run(self) -> Record:
        """Until every job has ended and every pilot has gone."""
        for job in self._jobs:
            self._at(job.submitted, job)
        self._at(0.0, None)
        while self._events:
            now, _, what = heappop(self._events)
            match what:
                case Job():
                    self._submit(what, now)
                case Pilot():
                    self._done(what, now)
                case None:
                    self._tick(now)
        return self.record

    def _at(self, when: float, what: Job | Pilot | None) -> None:
        heappush(self._events, (when, next(self._numbers), what))

    def _submit(self, job: Job, now: float) -> None:
        waiting = self._waiting.setdefault(job.model.name, Waiting(job.model))
        waiting.jobs.setdefault(job.user, deque()).append(job)
        waiting.tokens[job.user] = waiting.tokens.get(job.user, 0) + job.tokens * job.shards
        waiting.shards += job.shards
        waiting.following.insert(0, job.user)
        for pilot in list(self._idle[job.model.name].values()):
            if waiting.shards:
                self._lease(pilot, now)

    def _done(self, pilot: Pilot, now: float) -> None:
        pilot.loading = False
        for job, shards in pilot.lease:
            self._undone[job.id] -= shards
            if not self._undone[job.id]:
                self.record.ended[job.id] = now
        if pilot.lease:
            self._waiting[pilot.model.name].measured = True
        pilot.lease = []
        self._lease(pilot, now)

    def _lease(self, pilot: Pilot, now: float) -> None:
        self._idle[pilot.model.name].pop(pilot.name, None)
        if pilot.draining or now + LEASE_SHARDS * 2 * SHARD_SECONDS > pilot.ends:
            self._release(pilot, now)
            return
        waiting = self._waiting[pilot.model.name]
        candidates = self._candidates(waiting, now)
        began = perf_counter()
        choices = choose(candidates, self._usage, {}, int(LEASE_SHARDS * SHARD_SECONDS * TOKENS_PER_SECOND))
        self.record.timed("choose", began)
        if not choices:
            pilot.idle_since = now if pilot.idle_since is None else pilot.idle_since
            self._idle[pilot.model.name][pilot.name] = pilot
            return
        pilot.idle_since = None
        by_id = {jobs[0].id: jobs[0] for user in waiting.following if (jobs := waiting.jobs.get(user))}
        pilot.lease = [(by_id[one.candidate.job_id], one.shards) for one in choices]
        self._at(now + self._take(pilot, waiting, now), pilot)

    def _candidates(self, waiting: Waiting, now: float) -> list[Candidate]:
        waiting.following = [user for user in dict.fromkeys(waiting.following) if user in waiting.jobs]
        if waiting.shards and not waiting.following:
            self._refresh(waiting, now)
        return [self._head(waiting, user, now) for user in waiting.following[:NEXT_USERS]]

    def _refresh(self, waiting: Waiting, now: float) -> None:
        everyone = ordered((self._head(waiting, user, now) for user in waiting.jobs), self._usage, {})
        waiting.following = [self._jobs[one.job_id].user for one in everyone[:NEXT_USERS]]

    def _head(self, waiting: Waiting, user: str, now: float) -> Candidate:
        job = waiting.jobs[user][0]
        return self._order(job, self._left[job.id], now, self._served[user])

    def _take(self, pilot: Pilot, waiting: Waiting, now: float) -> float:
        """Move the pilot's lease out of what waits; the seconds that it takes."""
        alone: dict[str, int] = defaultdict(int)
        for job, shards in pilot.lease:
            alone[job.user] += shards * job.tokens
            self.record.began.setdefault(job.id, now)
            self._left[job.id] -= shards
            waiting.shards -= shards
            waiting.tokens[job.user] -= shards * job.tokens
            if not self._left[job.id]:
                waiting.jobs[job.user].popleft()
            if not waiting.jobs[job.user]:
                del waiting.jobs[job.user], waiting.tokens[job.user]
            self._served[job.user] = now
        waiting.leased = now
        seconds = sum(alone.values()) / TOKENS_PER_SECOND
        for user, one in charge(seconds * pilot.model.gpus, alone, sum(alone.values())).items():
            self._usage[user] += one.gpu_seconds
            self.record.work(user, now, now + seconds, one.gpu_seconds / seconds)
        return seconds

    def _release(self, pilot: Pilot, now: float) -> None:
        self.record.hold(pilot.started, now, pilot.model.gpus)
        del self._pilots[pilot.name]

    def _tick(self, now: float) -> None:
        backlog = {name: one.backlog(now) for name, one in self._waiting.items()}
        views = [pilot.view() for pilot in self._pilots.values()]
        began = perf_counter()
        decisions = pilots_wanted(backlog, views, self._limits, now)
        self.record.timed("pilots_wanted", began)
        over = [name for idle in self._idle.values() for name, pilot in idle.items() if pilot.ends <= now]
        for name in sorted({*decisions.drain, *over}):
            self._drain(self._pilots[name], now)
        for start in decisions.start:
            for _ in range(start.count):
                self._start(self._waiting[start.model].model, now, start.walltime_seconds)
        for waiting in self._waiting.values():
            self._refresh(waiting, now)
        if now % BIN == 0:
            self.record.sample(now, (user for one in self._waiting.values() for user in one.jobs))
        if len(self.record.ended) < len(self._jobs) or self._pilots:
            self._at(now + TICK_SECONDS, None)

    def _start(self, model: Model, now: float, walltime: float) -> None:
        pilot = Pilot(f"pilot {next(self._numbers):07}", model, now, now + START_SECONDS + walltime)
        self._pilots[pilot.name] = pilot
        assert sum(one.model.gpus for one in self._pilots.values()) <= self._limits.gpus
        self.record.loads += 1
        self.record.load_gpu_seconds += model.gpus * (START_SECONDS + model.load_seconds)
        self._at(now + START_SECONDS + model.load_seconds, pilot)

    def _drain(self, pilot: Pilot, now: float) -> None:
        pilot.draining = True
        if self._idle[pilot.model.name].pop(pilot.name, None):
            self._release(pilot, now)
