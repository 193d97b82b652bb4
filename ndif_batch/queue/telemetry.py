"""What workers and schedulers measure and report, as sums since they began. No SQL here."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, inf, nextafter
from typing import Any

BUCKETS: Mapping[str, tuple[float, ...]] = {
    "pass_seconds": (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    "pass_tasks": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    "pass_tokens": (64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536),
    "task_wait_seconds": (1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400),
    "lease_seconds": (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    "tick_seconds": (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
}
"""The upper bounds of each histogram's buckets; one more is for what lies above."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many observations lie in each bucket, and their sum."""

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Histograms by the names of :data:`BUCKETS`, and counts: tasks that were ``saved``, ``failed``, and so on.

    ``deviation`` is the largest one, relative, of tasks that were run again alone.
    """

    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    deviation: float | None = None

    def rounded_up(self) -> Measured:
        """The same, whose sums are no less than the exact ones: to Prometheus a sum that falls has begun anew."""
        histograms = {name: Histogram(one.counts, nextafter(one.total, inf)) for name, one in self.histograms.items()}
        return replace(self, histograms=histograms)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        histograms = {name: [list(one.counts), one.total] for name, one in self.histograms.items()}
        return {"histograms": histograms, "counts": dict(self.counts), "deviation": self.deviation}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """The inverse of :meth:`to_json`; what has other buckets than these is of another version and left out."""
        histograms = {
            name: Histogram(tuple(counts), total)
            for name, (counts, total) in data["histograms"].items()
            if name in BUCKETS and len(counts) == len(BUCKETS[name]) + 1
        }
        return cls(histograms, data["counts"], data["deviation"])


class Gauge:
    """Counts observations as they come; threads of one worker may share it."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._totals: dict[str, float] = {}
        self._counted: Counter[str] = Counter()
        self._deviation: float | None = None
        self._changed = False

    def observe(self, name: str, value: float, times: int = 1) -> None:
        """``times`` observations of ``value``."""
        self._changed = True
        bounds = BUCKETS[name]
        counts = self._counts.setdefault(name, [0] * (len(bounds) + 1))
        counts[bisect_left(bounds, value)] += times
        self._totals[name] = self._totals.get(name, 0.0) + value * times

    def count(self, name: str, more: int = 1) -> None:
        """So many more of what is counted under a name."""
        self._changed = True
        self._counted[name] += more

    def deviates(self, relative: float) -> None:
        """One task that was run again deviates so much."""
        self._changed = True
        self._deviation = max(relative, self._deviation or 0.0)

    @property
    def measured(self) -> Measured:
        """All of it so far."""
        names = list(self._counts)
        found = {name: Histogram(tuple(self._counts[name]), self._totals[name]) for name in names}
        return Measured(found, dict(self._counted), self._deviation)

    def news(self) -> Measured | None:
        """All of it, if anything has come since this was last asked for."""
        changed, self._changed = self._changed, False
        return self.measured if changed else None


def total(parts: Iterable[Measured]) -> Measured:
    """All of them together; in whichever order they come, the sums are the same to the last bit."""
    found, counts, deviations = defaultdict[str, list[Histogram]](list), Counter[str](), list[float]()
    for part in parts:
        counts.update(part.counts)
        deviations += [] if part.deviation is None else [part.deviation]
        for name, one in part.histograms.items():
            found[name].append(one)
    return Measured({name: _sum(each) for name, each in found.items()}, counts, max(deviations, default=None))


def _sum(each: Sequence[Histogram]) -> Histogram:
    counts = tuple(map(sum, zip(*(one.counts for one in each), strict=True)))
    return Histogram(counts, fsum(one.total for one in each))
