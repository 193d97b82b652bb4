"""What every request to the dashboard passes: where a change comes from, its size, and what its answer allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ndif_batch.server.buckets import Buckets

FORM = "form"
MOST_BYTES = 256 * 1024
REQUESTS_PER_SECOND, BURST = 20.0, 400
"""How often one browser may ask: each of its pages does so once a second at the most."""

POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets requests through to ``app`` with the :data:`FORM` that they sent in their state."""

    app: ASGIApp
    askers: Buckets = field(default_factory=lambda: Buckets(REQUESTS_PER_SECOND, BURST))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                message["headers"] = headers.raw
            await send(message)

        headers = Headers(scope=scope)
        wait = self.askers.take(headers.get("cookie") or scope.get("client"))
        if wait:
            often = {"Retry-After": str(ceil(wait))}
            await PlainTextResponse("this is asked too often", 429, often)(scope, receive, guarded)
            return
        if scope["method"] not in ("GET", "HEAD"):
            if not same_origin(headers):
                await PlainTextResponse("only the dashboard's own pages may do this", 403)(scope, receive, guarded)
                return
            body = await _body(receive)
            if body is None:
                await PlainTextResponse("this form is too large", 413)(scope, receive, guarded)
                return
            fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True)
            scope.setdefault("state", {})[FORM] = fields
        await self.app(scope, receive, guarded)


def same_origin(headers: Headers) -> bool:
    """Whether a browser says that a page of this very server sends the request; who says nothing is no browser."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return urlsplit(origin).netloc == headers.get("host")
    return site is not None


async def _body(receive: Receive) -> bytes | None:
    """The body; None for one that is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)
