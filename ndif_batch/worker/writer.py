"""One thread that writes and commits finished shards in order, while the engine goes on."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import TypeAlias

Work: TypeAlias = Callable[[], None]

WAITING = 4
"""How many finished shards may wait in memory; the engine pauses while there are more."""


class Writer:
    """As a context, runs what it is given one after the other. After the first that raises it drops the rest."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._queue: Queue[Work | None] = Queue(waiting)
        self._error: Exception | None = None
        self._dropping = False
        self._thread = Thread(target=self._run, name="writer", daemon=True)

    def put(self, work: Work) -> None:
        """Do ``work`` when all before it is done. Raises what an earlier one raised."""
        self._check()
        self._queue.put(work)

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
        while (work := self._queue.get()) is not None:
            try:
                if not self._dropping:
                    work()
            except Exception as error:  # noqa: BLE001 -- raised again in the thread that gave the work
                self._error = error
                self.drop()
            finally:
                self._queue.task_done()

    def __enter__(self) -> Writer:
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
