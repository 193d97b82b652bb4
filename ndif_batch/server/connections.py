"""HTTP connections that cost little: who sends slowly is cut off, and only so many are open at once."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ndif_batch.config import ServerSettings
from ndif_batch.errors import UsageError
from ndif_batch.server.problems import problem

LOOK_SECONDS = 0.5
"""How often a connection on which a request is being sent is looked at."""


def protocol(limits: ServerSettings) -> type[H11Protocol]:
    """The protocol of uvicorn's connections under these limits.

    A request must come, with its headers and body, within ``patience_seconds`` and a second more for each
    ``bytes_per_second`` of it; the first of a connection, counted from its opening. When there are too many connections
    the one that has been without a request for longest is closed.
    """

    class Patient(H11Protocol):
        """One connection; ``began`` is when the request began that is being sent on it."""

        began: float | None = None
        opened = 0.0
        received = 0
        looking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.opened = self.loop.time()
            if len(self.connections) > limits.connections:
                self._oldest_idle().transport.abort()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self.received += len(data)
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def send_400_response(self, msg: str) -> None:
            response = problem(UsageError(f"this is no HTTP that is understood here: {msg}"))
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _watch(self) -> None:
            """Look from now on if a request is being sent, and no more if none is."""
            begun = self.cycle is None or bool(self.conn.trailing_data[0])
            state = self.conn.their_state
            sends = state is h11.SEND_BODY or (state is h11.IDLE and begun)
            if sends and self.began is None:
                self.began, self.received = self.loop.time(), 0
                self.looking = self.loop.call_later(LOOK_SECONDS, self._look)
            elif not sends:
                self._end()

        def _end(self) -> None:
            self.began = None
            if self.looking is not None:
                self.looking.cancel()

        def _look(self) -> None:
            answered = self.cycle is not None and self.cycle.response_complete
            more = 0.0 if answered else self.received / limits.bytes_per_second
            if self.began is not None and self.loop.time() - self.began > limits.patience_seconds + more:
                self.transport.abort()
            else:
                self.looking = self.loop.call_later(LOOK_SECONDS, self._look)

        def _oldest_idle(self) -> H11Protocol:
            """The connection that is the longest without a request; this one, the newest, if all have one."""
            others = [one for one in self.connections if isinstance(one, Patient) and one is not self]
            idle = [one for one in others if one.cycle is None or one.cycle.response_complete]
            return min(idle, key=lambda one: one.opened, default=self)

    return Patient
