"""Tags of answers, by which who asks again is told that nothing has changed (RFC 9110, 13.1.2)."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from starlette.requests import Request
from starlette.responses import Response

JSON = "application/json"


def tagged(request: Request, content: bytes) -> tuple[dict[str, str], bool]:
    """The headers of an answer that ``content`` tells from others, and whether who asks has it already."""
    tag = f'"{blake2b(content, digest_size=16).hexdigest()}"'
    known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
    return {"ETag": tag, "Cache-Control": "private, no-cache"}, not {tag, "*"}.isdisjoint(known)


def answer(request: Request, body: bytes, more: Mapping[str, str] | None = None) -> Response:
    """JSON with a tag and ``more`` headers; 304 for who has it already."""
    headers, known = tagged(request, body)
    return (
        Response(status_code=304, headers=headers) if known else Response(body, 200, {**headers, **(more or {})}, JSON)
    )
