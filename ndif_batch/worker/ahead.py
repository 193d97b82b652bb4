"""Fetches what comes next in a thread of its own, while the engine runs what is there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """At most one thing is being fetched or waits to be taken. As a context it ends when that has come."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._coming: Future[Item] | None = None

    def begin(self, fetch: Callable[[], Item]) -> None:
        """Begin to fetch, unless something is on its way or there already."""
        if self._coming is None:
            self._coming = self._thread.submit(copy_context().run, fetch)

    @property
    def ready(self) -> bool:
        """Whether something is there, so that taking it neither waits nor raises."""
        coming = self._coming
        return coming is not None and coming.done() and coming.exception() is None

    def take(self) -> Item | None:
        """What was fetched, as soon as it is there; None if nothing was begun. Raises what fetching it raised."""
        coming, self._coming = self._coming, None
        return None if coming is None else coming.result()

    def __enter__(self) -> Ahead[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
