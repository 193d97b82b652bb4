"""What every request passes first: its token, then the size of its body and how deep its JSON is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import anyio.to_thread
import numpy as np
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ndif_batch.errors import NdifBatchError, NotAuthenticatedError, UsageError
from ndif_batch.queue import Queue
from ndif_batch.server.problems import problem

OPEN = frozenset({"/healthz"})
"""Paths that need no token and tell nothing."""

CALLER = "caller"
MOST_BYTES = 64 * 2**20
MOST_CONSTANT_BYTES = 256 * 2**20 + 4096
CONSTANTS = "/v1/constants/"
MOST_DEPTH = 100
"""Arrays and objects inside each other; a graph may have 64."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NO_JSON = re.compile(rb"NaN|Infinity")


class TooLargeError(UsageError):
    """The body is larger than this server takes."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets requests through to ``app`` with :data:`CALLER` in their state."""

    app: ASGIApp
    queue: Queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            if scope["path"] not in OPEN:
                token = _bearer(headers)
                caller = await anyio.to_thread.run_sync(self.queue.authenticate, token)
                scope.setdefault("state", {})[CALLER] = caller
            constant = scope["path"].startswith(CONSTANTS)
            body = await _body(receive, headers, MOST_CONSTANT_BYTES if constant else MOST_BYTES)
            if not constant:
                check_json(body)
        except TooLargeError as error:
            await problem(error, 413)(scope, receive, send)
            return
        except NdifBatchError as error:
            await problem(error)(scope, receive, send)
            return
        await self.app(scope, _Replayed(body, receive).receive, send)


def check_json(body: bytes) -> None:
    """``UsageError`` for JSON deeper than ``MOST_DEPTH``, or with what no database stores: NaN, Infinity, NUL."""
    rest = _STRING.sub(b"", body)
    if _NUL.search(body):
        raise UsageError("the body has a text with the character NUL, which cannot be stored")
    if _NO_JSON.search(rest):
        raise UsageError("the body has numbers that JSON does not have: NaN or Infinity")
    signs = np.zeros(256, dtype=np.int8)
    signs[list(b"[{")], signs[list(b"]}")] = 1, -1
    depth = int(np.cumsum(signs[np.frombuffer(rest, np.uint8)], dtype=np.int64).max(initial=0))
    if depth > MOST_DEPTH:
        raise UsageError(f"the body is {depth} arrays and objects deep, the limit is {MOST_DEPTH}")


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise NotAuthenticatedError("there is no token", hint="send it as `Authorization: Bearer …`")
    return token.strip()


async def _body(receive: Receive, headers: Headers, most: int) -> bytes:
    """The whole body; refused as soon as it is known to be too large."""
    declared = headers.get("content-length", "0")
    too_large = declared.isdecimal() and int(declared) > most
    parts: list[bytes] = []
    read, more = 0, True
    while more and not too_large:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        read += len(parts[-1])
        more, too_large = message.get("more_body", False), read > most
    if too_large:
        raise TooLargeError(f"the body is larger than {most:,} bytes")
    return b"".join(parts)


@dataclass(slots=True)
class _Replayed:
    """A body that was read, as if it came now."""

    body: bytes | None
    after: Receive

    async def receive(self) -> Message:
        if self.body is None:
            return await self.after()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}
