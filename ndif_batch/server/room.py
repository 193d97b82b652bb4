"""Room for requests: how many are served at once, how many of them for one token, and the bytes of their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ndif_batch.errors import BusyError

MOST_AT_ONCE, MOST_OF_ONE = 256, 64
"""Requests that are served at once, and those of one token; those of workers, who share one, are not counted so."""

MOST_HELD_BYTES = 2**30
"""The bodies of all requests together."""


@dataclass(slots=True)
class Room:
    """How many requests are being served, for which tokens, and the bytes of their bodies."""

    inside: int = 0
    held: int = 0
    of: Counter[int] = field(default_factory=Counter)

    @contextmanager
    def place(self, token_id: int | None) -> Iterator[None]:
        """A place for one request; ``BusyError`` if there is none."""
        if self.inside >= MOST_AT_ONCE or (token_id is not None and self.of[token_id] >= MOST_OF_ONE):
            raise BusyError("too many requests are being served", retry_after=1)
        self.inside += 1
        if token_id is not None:
            self.of[token_id] += 1
        try:
            yield
        finally:
            self.inside -= 1
            if token_id is not None:
                self.of[token_id] -= 1
                self.of += Counter()  # without those that are 0

    @contextmanager
    def bytes(self) -> Iterator[Held]:
        """Counts the bytes of one body."""
        mine = Held(self)
        try:
            yield mine
        finally:
            self.held -= mine.count


@dataclass(slots=True)
class Held:
    """The bytes of one body, which count until it is dealt with."""

    room: Room
    count: int = 0

    def add(self, more: int) -> None:
        """So many bytes more; ``BusyError`` if there is no room for them."""
        self.count += more
        self.room.held += more
        if self.room.held > MOST_HELD_BYTES:
            raise BusyError("the bodies of all requests together are too large now", retry_after=1)
