"""One thread that writes finished shards in order and commits those that are ready together, beside the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

WAITING = 4
"""How many finished shards may wait in memory; the engine pauses while there are more."""


class Writer(Generic[Item]):
    """As a context, writes what it is given, one after the other, and commits what waited together.

    ``write`` says whether there is something to commit. After the first that raises the rest is dropped; what was
    written before it is committed.
    """

    def __init__(
        self, write: Callable[[Item], bool], commit: Callable[[Sequence[Item]], None], waiting: int = WAITING
    ) -> None:
        self._write = write
        self._commit = commit
        self._queue: Queue[Item | None] = Queue(waiting)
        self._error: Exception | None = None
        self._dropping = False
        self._thread = Thread(target=self._run, name="writer", daemon=True)

    def put(self, item: Item) -> None:
        """Write ``item`` when all before it are written. Raises what an earlier one raised."""
        self._check()
        self._queue.put(item)

    def flush(self) -> None:
        """Returns when nothing waits. Raises what failed."""
        self._queue.join()
        self._check()

    def drop(self) -> None:
        """Begin nothing more."""
        self._dropping = True

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        more = True
        while more:
            ready = self._ready()
            more = ready[-1] is not None
            try:
                self._bring_in([item for item in ready if item is not None])
            except Exception as error:  # noqa: BLE001 -- raised again in the thread that gave the items
                self._error = error
                self.drop()
            finally:
                for _ in ready:
                    self._queue.task_done()

    def _ready(self) -> list[Item | None]:
        """What waits now, at least one; None is the end."""
        ready = [self._queue.get()]
        while ready[-1] is not None:
            try:
                ready.append(self._queue.get_nowait())
            except Empty:
                break
        return ready

    def _bring_in(self, items: Sequence[Item]) -> None:
        written: list[Item] = []
        try:
            for item in items:
                if not self._dropping and self._write(item):
                    written.append(item)
        finally:
            if written:
                self._commit(written)

    def __enter__(self) -> Writer[Item]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Without an error all that waits is done first; with one only what has begun."""
        if error is not None:
            self.drop()
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._check()
