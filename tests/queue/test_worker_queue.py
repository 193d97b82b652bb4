"""The queue in a database is a queue for workers, on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.worker_queue_conformance import WorkerQueueConformance
from tests.queue.worker_queue_stand import Outage, Stand


def gone(*_: object) -> None:
    raise OperationalError("the connection is gone", None, Exception("the connection is gone"))


@contextmanager
def at_statement(queue: Queue, number: int) -> Iterator[None]:
    """The connection breaks before the ``number``-th statement of a transaction."""
    left = [None] * number

    def count(*_: object) -> None:
        if not left:
            gone()
        left.pop()

    event.listen(queue._database._writer, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(queue._database._writer, "before_cursor_execute", count)


@contextmanager
def at_commit(queue: Queue, *, happens: bool) -> Iterator[None]:
    """The connection breaks when a transaction ends, before the database knows of it or after."""
    dialect = queue._database._writer.dialect
    commit: Callable[[Any], None] = dialect.do_commit

    def breaking(connection: Any) -> None:
        if happens:
            commit(connection)
        gone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_commit", breaking)
        yield


BREAKS: dict[str, tuple[Callable[[Queue], AbstractContextManager[None]], bool]] = {
    "at the beginning": (partial(at_statement, number=0), False),
    "in the middle": (partial(at_statement, number=1), False),
    "at the end": (partial(at_commit, happens=False), False),
    "after the end": (partial(at_commit, happens=True), True),
}


class TestDatabase(WorkerQueueConformance):
    @pytest.fixture
    def stand(self, queue: Queue, clock: HandClock) -> Stand:
        return Stand(queue, queue, clock)

    @pytest.fixture(params=BREAKS)
    def outage(self, request: pytest.FixtureRequest, queue: Queue) -> Outage:
        breaks, happens = BREAKS[request.param]
        return Outage(partial(breaks, queue), happens)
