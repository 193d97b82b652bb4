"""When the batch system will end this worker, and how much work still fits before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from ndif_batch.errors import SettingsError

RESERVE_SECONDS = 20.0
"""Kept free before the end: to finish a pass, write what is done and give the rest back."""

EARLY_SECONDS = 60.0
"""How much earlier than asked for Slurm may send the signal that announces the end."""

PILOT = "NDIF_BATCH_PILOT"
"""The variable with the name of the pilot that a worker runs in."""

WALLTIME, END_TIME = "NDIF_BATCH_WALLTIME", "SLURM_JOB_END_TIME"
"""The variables that tell it: in seconds from the start, and since the epoch."""


@dataclass(frozen=True, slots=True)
class Walltime:
    """The end of a worker on ``clock``; ``ends_at`` None is no end."""

    ends_at: float | None = None
    clock: Callable[[], float] = monotonic
    reserve: float = RESERVE_SECONDS

    @property
    def near(self) -> bool:
        """Whether a batch system may have said so already: Slurm does up to a minute too early."""
        return self._left() <= EARLY_SECONDS

    @property
    def over(self) -> bool:
        """Whether it is time to drain."""
        return self._left() <= 0

    def tokens(self, tokens_per_second: float | None, most: int, running: int = 0) -> int:
        """How many tokens, at most ``most``, can be leased now and end in time after ``running`` that come first.

        One is a lease of one shard: it measures the speed.
        """
        if self.ends_at is None:
            return most
        if tokens_per_second is None:
            return 1
        return max(0, min(most, int(self._left() * tokens_per_second) - running))

    def holds(self, tokens: int, tokens_per_second: float | None) -> bool:
        """Whether so many tokens end in time; what is not known yet may be tried."""
        return tokens_per_second is None or tokens <= self._left() * tokens_per_second

    def __str__(self) -> str:
        """How long it is until then, to follow on what happened now."""
        return "" if self.ends_at is None else f", {self.ends_at - self.clock():.0f} s before the end of its walltime"

    def _left(self) -> float:
        return float("inf") if self.ends_at is None else self.ends_at - self.reserve - self.clock()


def walltime(
    seconds: float | None, environment: Mapping[str, str], now: float, clock: Callable[[], float] = monotonic
) -> Walltime:
    """The earliest of ``seconds`` from now and what the environment says; ``now`` is in seconds since the epoch.

    The reserve is at most a quarter of what is left, so that a short allocation does something. ``SettingsError`` for
    a variable that is no number.
    """
    told = (seconds, _number(environment, WALLTIME, 0.0), _number(environment, END_TIME, now))
    left = [one for one in told if one is not None]
    if not left:
        return Walltime(None, clock)
    return Walltime(clock() + min(left), clock, min(RESERVE_SECONDS, max(0.0, min(left)) / 4))


def _number(environment: Mapping[str, str], name: str, start: float) -> float | None:
    text = environment.get(name)
    if text is None:
        return None
    try:
        return float(text) - start
    except ValueError:
        raise SettingsError(f"{name} is {text!r}, not a number of seconds") from None
