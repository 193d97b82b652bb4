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


class Asked:
    """Whether a worker is to end in good order, and why: the first ``reason`` stays. Threads may share it."""

    def __init__(self) -> None:
        self.reason = ""
        self._event = Event()

    def ask(self, reason: str) -> None:
        """From now on it is."""
        self.reason = self.reason or reason
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Returns after so long, or at once when it is; whether it is."""
        return self._event.wait(seconds)


class Draining:
    """Whether a worker drains: since it is ``asked``, or since its walltime is near."""

    def __init__(self, asked: Asked, walltime: Walltime, clock: Callable[[], float]) -> None:
        self._asked = asked
        self._walltime = walltime
        self._clock = clock
        self._deadline: float | None = None

    @property
    def begun(self) -> bool:
        """Whether nothing new may begin."""
        if self._walltime.over:
            self._asked.ask("the end of its walltime is near")
        return self._asked.is_set()

    def begin(self, reason: str) -> None:
        """From now on nothing new begins."""
        self._asked.ask(reason)

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
