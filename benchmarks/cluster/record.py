"""What a simulated day comes to: use of the GPUs, waits, fairness, loads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from cluster.workload import DAY, Job

BIN = 600.0
HOUR = 3600.0


@dataclass(slots=True)
class Record:
    """Collects while a simulation runs. Times are seconds since midnight; ``held`` counts loads and idling too."""

    gpus: int
    jobs: Sequence[Job]
    began: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    worked: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    held: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    got: defaultdict[tuple[int, str], float] = field(default_factory=lambda: defaultdict(float))
    waits: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    loads: int = 0
    load_gpu_seconds: float = 0.0
    decisions: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def work(self, user: str, start: float, end: float, gpus: float) -> None:
        """A user had ``gpus`` at work for a time."""
        for number, seconds in pieces(start, end, BIN):
            self.worked[number] += seconds * gpus
        for number, seconds in pieces(start, end, HOUR):
            self.got[number, user] += seconds * gpus

    def hold(self, start: float, end: float, gpus: int) -> None:
        """Somebody held GPUs for a time."""
        for number, seconds in pieces(start, end, BIN):
            self.held[number] += seconds * gpus

    def sample(self, now: float, users: Iterable[str]) -> None:
        """These users have work that waits; called once in each ``BIN``."""
        self.waits[int(now // HOUR)].update(set(users))

    def timed(self, name: str, began: float) -> None:
        """A decision took from ``began`` (of ``perf_counter``) until now."""
        self.decisions[name].append(perf_counter() - began)

    def fairness(self) -> dict[int, tuple[float, int]]:
        """By hour: Jain's index of the GPU-seconds of the users who had work waiting all through it, and their number.

        Jain, Chiu and Hawe 1984: 1 if all got the same, 1/n if one got everything.
        """
        found = {}
        for hour, users in sorted(self.waits.items()):
            got = [self.got[hour, user] for user, samples in users.items() if samples == HOUR // BIN]
            if len(got) > 1 and sum(got) > 0:
                found[hour] = (sum(got) ** 2 / (len(got) * sum(x * x for x in got)), len(got))
        return found

    def summary(self) -> dict[str, Any]:
        """The figures of the report; waits are seconds from a submission to the work on its first shard."""
        day = range(int(DAY // BIN))
        whole = self.gpus * DAY
        hours = self.fairness()
        users = sum(n for _, n in hours.values())
        wait = np.array([self.began[job.id] - job.submitted for job in self.jobs])
        turnaround = np.array([self.ended[job.id] - job.submitted for job in self.jobs])
        by_user = self.wait_by_user()
        asked = self.demand()
        small = sorted(by_user, key=lambda user: (asked[user], user))[: len(by_user) // 2]
        return {
            "utilisation": sum(self.worked[n] for n in day) / whole,
            "held": sum(self.held[n] for n in day) / whole,
            "work_gpu_hours": sum(self.worked.values()) / HOUR,
            "all_done_hours": max(self.ended.values()) / HOUR,
            "wait_seconds": _quantiles(wait),
            "turnaround_seconds": _quantiles(turnaround),
            "user_median_wait_seconds": _quantiles(np.array(list(by_user.values()))),
            "lighter_half_of_users_median_wait_seconds": _quantiles(np.array([by_user[user] for user in small])),
            "jain": sum(index * n for index, n in hours.values()) / users if users else None,
            "jain_user_hours": users,
            "loads": self.loads,
            "load_gpu_hours": self.load_gpu_seconds / HOUR,
            "decisions": {name: _timing(np.array(took)) for name, took in self.decisions.items()},
        }

    def demand(self) -> dict[str, float]:
        """GPU-seconds that each user asked for."""
        asked: dict[str, float] = defaultdict(float)
        for job in self.jobs:
            asked[job.user] += job.seconds * job.model.gpus
        return asked

    def wait_by_user(self) -> dict[str, float]:
        """The median wait of each user's jobs."""
        waits: dict[str, list[float]] = defaultdict(list)
        for job in self.jobs:
            waits[job.user].append(self.began[job.id] - job.submitted)
        return {user: float(np.median(found)) for user, found in waits.items()}


def pieces(start: float, end: float, width: float) -> Iterable[tuple[int, float]]:
    """Numbers of the bins that a time touches, and its seconds in each."""
    number = int(start // width)
    while start < end:
        until = min(end, (number + 1) * width)
        yield number, until - start
        start, number = until, number + 1


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
    return {"mean": float(values.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def _timing(took: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    p50, p99 = np.quantile(took, [0.5, 0.99])
    return {"calls": len(took), "p50_ms": float(p50) * 1e3, "p99_ms": float(p99) * 1e3}
