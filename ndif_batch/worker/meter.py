"""Measures what the engine's calls cost: GPU-seconds of each shard, and the speed of this worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.telemetry import Gauge
from ndif_batch.scheduling.charging import charge
from ndif_batch.worker.ports import Counters

Item = TypeVar("Item")

MEMORY = 0.5
"""How much of what was measured in earlier calls counts beside the newest."""


@dataclass(slots=True)
class _Pool:
    """What was spent and not charged yet. ``alone`` are the tokens that the outcomes would have cost by themselves."""

    seconds: float = 0.0
    tokens: int = 0
    alone: int = 0


@dataclass(frozen=True, slots=True)
class _Done:
    """An engine's counters at one moment."""

    passes: int
    tasks: int
    tokens: int
    busy_seconds: float

    @classmethod
    def of(cls, counters: Counters) -> _Done:
        return cls(counters.passes, counters.tasks, counters.tokens, counters.busy_seconds)


@dataclass(slots=True)
class Meter:
    """Costs of one engine on ``gpus`` devices. Times are seconds on ``clock``.

    ``checking_seconds`` are those of the engine's in which tasks were run a second time; ``gauge`` counts what it did.
    """

    counters: Counters
    gpus: int = 1
    clock: Callable[[], float] = monotonic
    _pool: _Pool = field(default_factory=_Pool)
    _seconds: float = 0.0
    _tokens: float = 0.0
    _spent: float = 0.0
    _since: float | None = None
    checking_seconds: float = 0.0
    gauge: Gauge = field(default_factory=Gauge)

    @property
    def engine_seconds(self) -> float:
        """How long the engine has run, the call that it is in included."""
        since = self._since
        return self._spent + (0.0 if since is None else self.clock() - since)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of tasks, each as if alone, in a second of the engine; None before the first outcome."""
        return self._tokens / self._seconds if self._seconds > 0 and self._tokens > 0 else None

    def begin(self) -> None:
        """New shards: what the last ones left uncharged is nobody's."""
        self._pool = _Pool()

    def call(self, outcomes: Iterator[Item]) -> Iterator[Item]:
        """The outcomes of one call of the engine; the time until each is the engine's."""
        self._seconds, self._tokens = MEMORY * self._seconds, MEMORY * self._tokens
        while True:
            ran, before, began = self.counters.tokens, _Done.of(self.counters), self._begin()
            try:
                outcome = next(outcomes)
            except StopIteration:
                return
            finally:
                self._end(began)
                self._pool.tokens += self.counters.tokens - ran
                self._observe(before)
            yield outcome

    def _observe(self, before: _Done) -> None:
        """The passes since ``before``: what is known of them together is told of each."""
        now = _Done.of(self.counters)
        passes = now.passes - before.passes
        if passes:
            self.gauge.observe("pass_seconds", (now.busy_seconds - before.busy_seconds) / passes, passes)
            self.gauge.observe("pass_tasks", (now.tasks - before.tasks) / passes, passes)
            self.gauge.observe("pass_tokens", (now.tokens - before.tokens) / passes, passes)

    @contextmanager
    def checking(self) -> Iterator[None]:
        """What is run meanwhile is run a second time: its seconds are charged, its tokens are nobody's."""
        began = self._begin()
        try:
            yield
        finally:
            self.checking_seconds += self._end(began)

    def _begin(self) -> float:
        self._since = self.clock()
        return self._since

    def _end(self, began: float) -> float:
        spent = self.clock() - began
        self._since = None
        self._spent += spent
        self._seconds += spent
        self._pool.seconds += spent * self.gpus
        return spent

    def arrived(self, tokens: int) -> None:
        """A task's outcome is there; alone it would have cost ``tokens``."""
        self._pool.alone += tokens
        self._tokens += tokens

    def take(self, tokens: int) -> Cost:
        """The part of a finished shard of ``tokens`` in what the engine has spent and nobody has been charged for."""
        pool = self._pool
        parts = {"shard": tokens, "others": max(0, pool.alone - tokens)}
        part = charge(pool.seconds, parts, pool.tokens)["shard"]
        pool.seconds -= part.gpu_seconds
        pool.tokens -= part.tokens - part.shared_tokens
        pool.alone = parts["others"]
        return Cost(part.gpu_seconds, part.tokens, part.shared_tokens)
