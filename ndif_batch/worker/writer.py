"""One thread that writes finished shards in order and commits those that are ready together, beside the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

WAITING_BYTES = 256 * 2**20
"""While finished shards of so many bytes wait in memory the engine pauses; one may always wait, however large."""

WAITING = 8
"""So many shards count as so many bytes, however small they are."""


class Waiting(Queue[Item | None], Generic[Item]):
    """A queue that is full by what its items weigh; ``None`` is its end."""

    def __init__(self, most: int, weight: Callable[[Item], int]) -> None:
        self._weight = weight
        self._total = 0
        super().__init__(most)

    def _put(self, item: Item | None) -> None:
        super()._put(item)
        self._total += self._weighed(item)

    def _get(self) -> Item | None:
        item = super()._get()
        self._total -= self._weighed(item)
        return item

    def _qsize(self) -> int:
        return self._total

    def _weighed(self, item: Item | None) -> int:
        return max(1, self.maxsize // WAITING, 0 if item is None else self._weight(item))


class Writer(Generic[Item]):
    """As a context, writes what it is given, one after the other, and commits what waited together.

    ``write`` says whether there is something to commit, ``weight`` how many bytes an item takes until it is written.
    After the first that raises the rest is dropped; what was written before it is committed.
    """

    def __init__(
        self,
        write: Callable[[Item], bool],
        commit: Callable[[Sequence[Item]], None],
        weight: Callable[[Item], int] = lambda item: 0,
        most: int = WAITING_BYTES,
    ) -> None:
        self._write = write
        self._commit = commit
        self._queue = Waiting(most, weight)
        self._error: Exception | None = None
        self._dropping = False
        self._thread = Thread(target=copy_context().run, args=(self._run,), name="writer", daemon=True)

    def put(self, item: Item) -> None:
        """Write ``item`` when all before it are written; waits while much is waiting. Raises what an earlier raised."""
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
