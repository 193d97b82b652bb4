"""The workers' queue behind a real server is a queue for workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.errors import UnavailableError
from ndif_batch.queue.http import HttpWorkerQueue, Line
from ndif_batch.queue.records import JobState
from ndif_batch.queue.remote import RemoteQueue
from ndif_batch.server.process import listening_on, where
from tests.queue.conftest import HandClock, postgres_server, sqlite_template, url
from tests.queue.queue_samples import MODEL, check_sums
from tests.queue.worker_queue_conformance import WorkerQueueConformance
from tests.queue.worker_queue_stand import Outage, Stand
from tests.server.serving import Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working

__all__ = ["postgres_server", "sqlite_template", "url"]


class CutLine(Line):
    """A line that loses requests or answers while it is cut."""

    cut_at: str | None = None

    def ask(self, request: bytes) -> bytes:
        if self.cut_at == "there":
            raise UnavailableError("the server does not answer")
        reply = self.send("POST", "/v1/worker", body=request).content
        if self.cut_at == "back":
            raise UnavailableError("the answer did not come")
        return reply

    @contextmanager
    def cut(self, where: str) -> Iterator[None]:
        self.cut_at = where
        yield
        self.cut_at = None


class TestServer(WorkerQueueConformance):
    @pytest.fixture
    def clock(self) -> HandClock:
        return HandClock()

    @pytest.fixture
    def queue(self, url: str, clock: HandClock) -> Iterator[LocalQueue]:
        with LocalQueue.open(url, clock) as opened:
            opened.add_model(MODEL)
            yield opened
            check_sums(opened)

    @pytest.fixture
    def line(self, queue: LocalQueue, tmp_path: Path) -> Iterator[CutLine]:
        with serving(queue, Settings(data_dir=tmp_path)) as served:
            line = CutLine(served.url, served.tokens["walt"])
            yield line
            line.close()

    @pytest.fixture
    def stand(self, queue: LocalQueue, line: CutLine, clock: HandClock) -> Stand:
        return Stand(RemoteQueue(line.ask), queue, clock)

    @pytest.fixture(params=["there", "back"])
    def outage(self, request: pytest.FixtureRequest, line: CutLine) -> Outage:
        return Outage(partial(line.cut, request.param), happens=request.param == "back")


def test_a_worker_that_reaches_the_queue_over_http_saves_what_is_right(behind: Client, served: Served) -> None:
    jobs = [submit(behind, seed=seed) for seed in range(2)]
    with served.worker_queue() as queue, working(behind, ToyEngine(), max_tokens=18, queue=queue) as worker:
        assert worker.run().tasks_done == 24
    for job in jobs:
        assert job.refresh().state is JobState.COMPLETED
        assert_right(job)


def test_a_server_that_is_gone_is_an_outage() -> None:
    with listening_on("127.0.0.1", 0) as listener:
        url = where(listener)
    with HttpWorkerQueue(Line(url, "x")) as queue, pytest.raises(UnavailableError, match="does not answer"):
        queue.has_work("toy")
