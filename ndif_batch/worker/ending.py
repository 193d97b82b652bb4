"""When a worker ends: by itself, because it is asked to drain, or before its walltime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from ndif_batch.worker.walltime import Walltime

DRAIN_SECONDS = 2.0
"""How long a draining worker goes on taking outcomes after the first that it gets: those of the same pass."""


@dataclass(frozen=True, slots=True)
class Until:
    """When a worker ends by itself: after ``one`` round, when no job of its model is left, after some idle time."""

    one: bool = False
    idle: bool = False
    idle_seconds: float | None = None


class Draining:
    """Whether a worker drains: since ``asked`` is set, or since its walltime is near."""

    def __init__(self, asked: Event, walltime: Walltime, clock: Callable[[], float]) -> None:
        self._asked = asked
        self._walltime = walltime
        self._clock = clock
        self._deadline: float | None = None

    @property
    def begun(self) -> bool:
        """Whether nothing new may begin."""
        if self._walltime.over:
            self._asked.set()
        return self._asked.is_set()

    def begin(self) -> None:
        """From now on nothing new begins."""
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Returns after so long, or at once when the worker is asked to drain."""
        self._asked.wait(seconds)

    def is_over(self) -> bool:
        """Whether an outcome that has just come is the last to take: those of its pass come at once, then no more."""
        if not self.begun:
            return False
        if self._deadline is None:
            self._deadline = self._clock() + DRAIN_SECONDS
        return self._clock() >= self._deadline
