"""Errors as ``application/problem+json``, each with the stable code of its class."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ndif_batch.errors import (
    BusyError,
    ConflictError,
    KeyReusedError,
    NdifBatchError,
    NotAllowedError,
    NotAuthenticatedError,
    NotFoundError,
    TimedOutError,
    UnavailableError,
    UsageError,
)
from ndif_batch.queue import wire
from ndif_batch.queue.http import ProblemDetails

MEDIA_TYPE = "application/problem+json"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What no browser may do with an answer, which is data and never a page."""

STATUS: Mapping[type[NdifBatchError], int] = {
    NotAuthenticatedError: 401,
    NotAllowedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    KeyReusedError: 422,
    UsageError: 400,
    TimedOutError: 504,
    UnavailableError: 503,
}
"""The first class that an error is decides; what is none of them is 500."""

CLASSES: Mapping[int, type[NdifBatchError]] = {404: NotFoundError, 401: NotAuthenticatedError, 403: NotAllowedError}

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def status_of(error: NdifBatchError) -> int:
    """The status of the response that tells an error."""
    return next((number for kind, number in STATUS.items() if isinstance(error, kind)), 500)


def problem(error: NdifBatchError, status: int | None = None) -> Response:
    """The response that tells an error."""
    found = status or status_of(error)
    details = ProblemDetails(
        type=f"urn:ndif-batch:{error.code}",
        title=(type(error).__doc__ or error.code).partition(";")[0].partition(". ")[0].rstrip("."),
        status=found,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        details=wire.details(error),
    )
    headers = dict(HEADERS)
    if found == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(ceil(error.retry_after))
    return Response(details.model_dump_json(), found, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let ``app`` tell every error so."""

    @app.exception_handler(NdifBatchError)
    def told(request: Request, error: NdifBatchError) -> Response:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(UsageError(f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        kind = CLASSES.get(error.status_code, UsageError)
        response = problem(kind(f"{request.method} {request.url.path}: {error.detail}"), error.status_code)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        path = request.scope["raw_path"].decode("ascii")
        log.error("request.failed", method=request.method, path=path, exc_info=error)
        return problem(NdifBatchError("something went wrong here; the server's log has what"))
