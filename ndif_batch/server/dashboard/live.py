"""Tells browsers that something changed: one look at the queue each second, however many of them listen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic

from anyio.to_thread import run_sync

from ndif_batch.client.local import LocalQueue
from ndif_batch.errors import NdifBatchError
from ndif_batch.queue.figures import Pulse

TICK_SECONDS = 1.0
QUIET_SECONDS = 15.0
"""After so long without a change a comment goes out, so that who has left is noticed."""

RATE_SECONDS = 60.0


@dataclass
class Heart:
    """Looks while somebody listens. ``version`` is raised by each change, ``stopping`` says that the server ends."""

    queue: LocalQueue
    stopping: Callable[[], bool]
    version: int = 0
    _seen: Pulse | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=int(RATE_SECONDS / TICK_SECONDS)))
    _listeners: int = 0
    _task: asyncio.Task[None] | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that went through all workers, over the last minute at the most; None before it is known."""
        if len(self._samples) < 2:
            return None
        (began, first), (ended, last) = self._samples[0], self._samples[-1]
        return (last - first) / (ended - began) if ended > began else None

    async def listen(self) -> AsyncIterator[str]:
        """Server-sent events: a ``pulse`` at once, and one for each change. Holds no connection to the database."""
        self._listeners += 1
        if self._task is None:
            self._task = asyncio.create_task(self._beat())
        try:
            told, quiet = -1, monotonic()
            while not self.stopping():
                if told != self.version:
                    told, quiet = self.version, monotonic()
                    yield f"event: pulse\ndata: {told}\n\n"
                elif monotonic() - quiet > QUIET_SECONDS:
                    quiet = monotonic()
                    yield ": still here\n\n"
                await asyncio.sleep(TICK_SECONDS / 4)
        finally:
            self._listeners -= 1

    async def _beat(self) -> None:
        try:
            while self._listeners and not self.stopping():
                await self._look()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            self._task = None
            self._samples.clear()

    async def _look(self) -> None:
        try:
            seen = await run_sync(self.queue.pulse)
        except NdifBatchError:
            seen = None
        if seen != self._seen:
            self._seen = seen
            self.version += 1
        if seen is not None:
            self._samples.append((monotonic(), seen.tokens))
