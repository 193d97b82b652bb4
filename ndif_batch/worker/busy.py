"""The share of a worker's time in which its device has something to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ndif_batch.worker.meter import Meter


class Busy:
    """Compares the seconds of device and engine with the worker's, on the clock of ``meter``, from now on."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._began = self._looked = meter.clock()
        self._worked, self._seen = meter.counters.busy_seconds, meter.engine_seconds
        self._idle = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """There is nothing to do: this time does not count."""
        began = self._meter.clock()
        yield
        self._idle += self._meter.clock() - began

    @property
    def share(self) -> float | None:
        """From 0 to 1, of all the time in which there was something to do; None if there was none."""
        seconds = self._meter.clock() - self._began - self._idle
        return (self._meter.counters.busy_seconds - self._worked) / seconds if seconds > 0 else None

    def lately(self) -> float | None:
        """From 0 to 1, how long the engine ran of the time since it was last asked for, with or without work."""
        now, ran = self._meter.clock(), self._meter.engine_seconds
        seconds, spent = now - self._looked, ran - self._seen
        self._looked, self._seen = now, ran
        return min(1.0, spent / seconds) if seconds > 0 else None
