"""Who a browser is: a code from the command line, once, becomes a cookie that scripts cannot read."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ndif_batch.client.local import LocalQueue
from ndif_batch.errors import NotAllowedError, NotAuthenticatedError
from ndif_batch.queue.access import SESSION_LASTS, Caller, Scope, parse_token
from ndif_batch.queue.routes import DASHBOARD

FROM_OUTSIDE = frozenset({"cross-site", "same-site"})


def cookie(request: Request) -> str:
    """The cookie's name: ports of one host share their cookies, and each may be another cluster's tunnel."""
    return f"ndif_batch_{request.url.port or 80}"


def caller(request: Request, queue: LocalQueue) -> Caller:
    """Who is logged in; ``NotAuthenticatedError`` if nobody is, ``NotAllowedError`` for who may not look."""
    text = request.cookies.get(cookie(request))
    if text is None:
        raise NotAuthenticatedError("nobody is logged in here")
    found = queue.authenticate(text)
    found.require(Scope.READ)
    return found


def log_in(request: Request, queue: LocalQueue, code: str) -> Response:
    """To the overview, with a session; ``NotAuthenticatedError`` for a code that is none, spent or too old."""
    if request.headers.get("sec-fetch-site") in FROM_OUTSIDE:
        raise NotAllowedError("another page may not log you in", hint="open the link yourself")
    made = queue.login(code.strip())
    response = RedirectResponse(f"{DASHBOARD}/", status_code=303)
    response.set_cookie(
        cookie(request),
        made.text,
        max_age=int(SESSION_LASTS.total_seconds()),
        path=DASHBOARD,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


def log_out(request: Request, queue: LocalQueue, user: str) -> Response:
    """To the login, and the session opens nothing any more."""
    token = parse_token(request.cookies.get(cookie(request), ""))
    if token is not None:
        queue.revoke_token(token[0], actor=user)
    response = RedirectResponse(f"{DASHBOARD}/login", status_code=303)
    response.delete_cookie(cookie(request), path=DASHBOARD, httponly=True, samesite="strict")
    return response
