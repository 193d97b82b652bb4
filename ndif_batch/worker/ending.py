"""When a worker ends: by itself, because it is asked to drain, or before its walltime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from time import monotonic

from ndif_batch.worker.walltime import Walltime

DRAIN_SECONDS = 2.0
"""How long a draining worker goes on taking outcomes after the first that it gets: those of the same pass."""

GENERATION_SECONDS = 8.0
"""How long a draining worker waits for a generation to end; its tasks go back to the queue if it takes longer."""

WALLTIME = "the end of its walltime is near"


@dataclass(frozen=True, slots=True)
class Until:
    """When a worker ends by itself: after ``one`` round, when no job of its model is left, after some idle time."""

    one: bool = False
    idle: bool = False
    idle_seconds: float | None = None


class Asked:
    """Whether a worker is to end in good order, and why: the first ``reason`` stays. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.reason = ""
        self._clock = clock
        self._since = float("inf")
        self._event = Event()

    def ask(self, reason: str) -> None:
        """From now on it is."""
        self.reason = self.reason or reason
        self._since = min(self._since, self._clock())
        self._event.set()

    @property
    def seconds(self) -> float:
        """For how long it is; negative if it is not."""
        return self._clock() - self._since

    def is_set(self) -> bool:
        """Whether it is."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Returns after so long, or at once when it is; whether it is."""
        return self._event.wait(seconds)


@dataclass(frozen=True, slots=True)
class Pressing:
    """Whether a generation that is under way is to be given up: it is long since the worker was ``asked`` to end."""

    asked: Asked
    walltime: Walltime

    def __call__(self) -> bool:
        """Whether it is."""
        if self.walltime.over:
            self.asked.ask(WALLTIME)
        return self.asked.seconds >= GENERATION_SECONDS


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
            self._asked.ask(WALLTIME)
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
