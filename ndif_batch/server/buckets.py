"""Token buckets: how often somebody may ask. Pure but for the clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from time import monotonic

MOST_KEYS = 10_000
"""So many askers are remembered; who has not asked for longest is forgotten first."""


@dataclass(slots=True)
class Buckets:
    """A bucket for each asker: ``burst`` requests at once, and ``rate`` a second after that."""

    rate: float
    burst: float
    clock: Callable[[], float] = monotonic
    _left: OrderedDict[Hashable, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, asker: Hashable) -> float:
        """Take one request from the asker's bucket: 0, or after how many seconds there is one."""
        now = self.clock()
        left, at = self._left.pop(asker, (self.burst, now))
        left = min(self.burst, left + (now - at) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[asker] = (left if wait else left - 1, now)
        if len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)
        return wait
