"""What every request passes first: its token, whether there is room for it, its size, and how deep its JSON is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from secrets import token_hex
from time import perf_counter

import numpy as np
import structlog
from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ndif_batch.config import ServerSettings
from ndif_batch.errors import BusyError, NdifBatchError, NotAuthenticatedError, UsageError
from ndif_batch.queue import Queue
from ndif_batch.queue.access import Caller, parse_token
from ndif_batch.server.buckets import Buckets
from ndif_batch.server.problems import HEADERS, problem
from ndif_batch.server.room import Held, Room

OPEN = frozenset({"/healthz"})
"""Paths that need no token and tell nothing."""

CALLER = "caller"
MOST_BYTES = 64 * 2**20
MOST_CONSTANT_BYTES = 256 * 2**20 + 4096
CONSTANTS, WORKER = "/v1/constants/", "/v1/worker"
MOST_DEPTH = 100
"""Arrays and objects inside each other; a graph may have 64."""

WORKERS = 10
"""So many times as often as another token may one of workers ask."""

STRANGERS_PER_SECOND, STRANGERS_BURST = 10.0, 100
"""How often an address may ask without a valid token."""

_BLOCK = 2**20
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_NO_JSON = re.compile(rb"NaN|Infinity")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class TooLargeError(UsageError):
    """The body is larger than this server takes."""


class TooOftenError(BusyError):
    """Whoever asks does so more often than the server answers one."""


class _GoneError(NdifBatchError):
    """Whoever asked has gone before their request was whole."""


@dataclass(slots=True)
class Gate:
    """Lets requests through to ``app`` with :data:`CALLER` in their state."""

    app: ASGIApp
    queue: Queue
    limits: ServerSettings
    room: Room = field(default_factory=Room)
    askers: Buckets = field(init=False)
    workers: Buckets = field(init=False)
    strangers: Buckets = field(default_factory=lambda: Buckets(STRANGERS_PER_SECOND, STRANGERS_BURST))

    def __post_init__(self) -> None:
        rate, burst = self.limits.requests_per_second, self.limits.burst
        self.askers = Buckets(rate, burst)
        self.workers = Buckets(WORKERS * rate, WORKERS * burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, token_hex(8))
        with structlog.contextvars.bound_contextvars(request=answer.request_id):
            try:
                await self._serve(scope, receive, answer)
            except _GoneError:
                return
            except (TooLargeError, TooOftenError) as error:
                await problem(error, 413 if isinstance(error, TooLargeError) else 429)(scope, receive, answer.send)
            except NdifBatchError as error:
                await problem(error)(scope, receive, answer.send)
            _log(scope, answer)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        token_id = None if path in OPEN else await self._known(scope, headers)
        if path in OPEN:
            _require(self.strangers.take((path, _address(scope))))
        with self.room.place(None if path == WORKER else token_id), self.room.bytes() as held:
            constant = path.startswith(CONSTANTS)
            body = await _body(receive, headers, MOST_CONSTANT_BYTES if constant else MOST_BYTES, held)
            answer.whole = True
            if not constant:
                await _checked(body)
            await self.app(scope, _Replayed(body, receive).receive, answer.send)

    async def _known(self, scope: Scope, headers: Headers) -> int:
        """Find out who asks; the number of their token. Strangers may ask seldom."""
        try:
            token = _bearer(headers)
            caller: Caller = await run_sync(self.queue.authenticate, token)
        except NotAuthenticatedError:
            _require(self.strangers.take(_address(scope)))
            raise
        scope.setdefault("state", {})[CALLER] = caller
        structlog.contextvars.bind_contextvars(user=caller.user)
        token_id = (parse_token(token) or (0, ""))[0]
        _require((self.workers if scope["path"] == WORKER else self.askers).take(token_id))
        return token_id


def check_json(body: bytes) -> None:
    """``UsageError`` for JSON deeper than ``MOST_DEPTH``, or with what no database stores: NaN, Infinity, NUL."""
    rest = _STRING.sub(b"", body)
    if _NUL.search(body):
        raise UsageError("the body has a text with the character NUL, which cannot be stored")
    if _NO_JSON.search(rest):
        raise UsageError("the body has numbers that JSON does not have: NaN or Infinity")
    signs = np.zeros(256, dtype=np.int8)
    signs[list(b"[{")], signs[list(b"]}")] = 1, -1
    deepest = depth = 0
    for start in range(0, len(rest), _BLOCK):
        depths = np.cumsum(signs[np.frombuffer(rest[start : start + _BLOCK], np.uint8)], dtype=np.int32)
        deepest = max(deepest, depth + int(depths.max()))
        depth += int(depths[-1])
    if deepest > MOST_DEPTH:
        raise UsageError(f"the body is {deepest} arrays and objects deep, the limit is {MOST_DEPTH}")


async def _checked(body: bytes) -> None:
    """Check JSON; if it is long, without the others waiting for it."""
    if len(body) > _BLOCK:
        await run_sync(check_json, body)
    elif body:
        check_json(body)


def _require(wait: float) -> None:
    if wait:
        raise TooOftenError("this is asked too often", retry_after=wait)


def _address(scope: Scope) -> str:
    """Where a request comes from; all who come through a Unix socket are one account."""
    client = scope.get("client")
    return client[0] if client else ""


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise NotAuthenticatedError("there is no token", hint="send it as `Authorization: Bearer …`")
    return token.strip()


async def _body(receive: Receive, headers: Headers, most: int, held: Held) -> bytes:
    """The whole body; refused as soon as it is known to be too large."""
    declared = headers.get("content-length", "0")
    too_large = declared.isdecimal() and int(declared) > most
    parts: list[bytes] = []
    more = True
    while more and not too_large:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError("the request is not whole")
        parts.append(message.get("body", b""))
        held.add(len(parts[-1]))
        more, too_large = message.get("more_body", False), held.count > most
    if too_large:
        raise TooLargeError(f"the body is larger than {most:,} bytes")
    return b"".join(parts)


def _log(scope: Scope, answer: _Answer) -> None:
    """A line for each request that changes something or goes wrong; not for the many of workers and of readers."""
    looks = scope["method"] in ("GET", "HEAD") or scope["path"] == WORKER
    if looks and answer.status < 500:
        return
    seconds = round(perf_counter() - answer.began, 4)
    job = str(scope.get("path_params", {}).get("job_id", ""))
    known = {"job": int(job)} if job.isdecimal() else {}
    path = scope["raw_path"].decode("ascii")  # as it was sent: no character that steers a terminal
    log.info("request", method=scope["method"], path=path, status=answer.status, seconds=seconds, **known)


@dataclass(slots=True)
class _Answer:
    """What is sent, with :data:`HEADERS` and the number of the request.

    Unless the request is ``whole`` the rest of it is not waited for: the connection ends with the answer.
    """

    to: Send
    request_id: str
    status: int = 0
    whole: bool = False
    began: float = field(default_factory=perf_counter)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-Id"] = self.request_id
            if not self.whole:
                headers["Connection"] = "close"
        await self.to(message)


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
