"""A real server in a thread of the test: a Unix socket or a loopback port, users of every role and their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import httpx
from structlog.testing import capture_logs

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.http import HttpWorkerQueue, Line, RemoteApi, connect
from ndif_batch.server.process import listening, listening_on, server, where

WAIT = 30.0

WHO = {"ada": Role.USER, "bob": Role.USER, "rita": Role.READER, "walt": Role.WORKER, "root": Role.ADMIN}
"""Ada owns what tests look at."""


@dataclass(frozen=True)
class Served:
    """Where the server answers, and a token of each of ``WHO``."""

    url: str
    tokens: dict[str, str]
    sent: list[int]
    """The bytes of each part of an answer."""

    logs: Sequence[Mapping[str, Any]]
    """What the server has logged."""

    def api(self, who: str) -> RemoteApi:
        """The API for one of ``WHO``."""
        return connect(self.url, self.tokens[who])

    def line(self, who: str) -> Line:
        """Requests of one of ``WHO``."""
        return Line(self.url, self.tokens[who])

    def worker_queue(self) -> HttpWorkerQueue:
        """The workers' queue."""
        return HttpWorkerQueue(self.line("walt"))

    def http(self, who: str | None = None) -> httpx.Client:
        """Plain requests, with the token of one of ``WHO``."""
        headers = {} if who is None else {"Authorization": f"Bearer {self.tokens[who]}"}
        if self.url.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.url.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://test", headers=headers, timeout=WAIT)
        return httpx.Client(base_url=self.url, headers=headers, timeout=WAIT)


@dataclass(frozen=True)
class Counting:
    """Counts what an application sends."""

    app: Any
    sent: list[int] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            self.sent.append(len(message.get("body", b"")))
            await send(message)

        await self.app(scope, receive, counted)


def everybody(queue: LocalQueue) -> dict[str, str]:
    """Make the users of ``WHO``; the text of a token of each."""
    for name, role in WHO.items():
        queue.set_role(name, role, actor="test")
    return {name: queue.create_token(name, actor="test").text for name in WHO}


@contextmanager
def serving(queue: LocalQueue, settings: Settings, *, unix: bool = True) -> Iterator[Served]:
    """A server of ``queue``, that has ended when the block does."""
    with TemporaryDirectory(prefix="ndif-") as folder, capture_logs() as logs:
        listener = listening(Path(folder) / "socket") if unix else listening_on("127.0.0.1", 0)
        with listener as at:
            running = server(queue, settings)
            running.config.app = counting = Counting(running.config.app)
            thread = Thread(target=running.run, kwargs={"sockets": [at]})
            thread.start()
            try:
                yield Served(where(at), everybody(queue), counting.sent, logs)
            finally:
                running.should_exit = True
                thread.join(WAIT)
                assert not thread.is_alive()
