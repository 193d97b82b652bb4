"""Waits out an outage of the queue: its database restarts, its server moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TypeVar

import structlog

from ndif_batch.errors import UnavailableError

log: structlog.stdlib.BoundLogger = structlog.get_logger()
Answer = TypeVar("Answer")

RETRY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an outage may last, by which clock, and how to pause between two questions."""

    seconds: float = 60.0
    clock: Callable[[], float] = monotonic
    pause: Callable[[float], None] = sleep

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """The answer, when there is one; the last ``UnavailableError`` if the outage lasts too long."""
        deadline = self.clock() + self.seconds
        while True:
            try:
                return question()
            except UnavailableError as error:
                if self.clock() >= deadline:
                    raise
                log.warning("queue.unavailable", reason=error.message)
                self.pause(RETRY_SECONDS)
