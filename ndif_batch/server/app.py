"""The application: every route behind the gate, and the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.queue.access import Scope
from ndif_batch.queue.http import ProblemDetails
from ndif_batch.queue.remote import serve
from ndif_batch.queue.routes import PREFIX
from ndif_batch.server import archive, problems
from ndif_batch.server.apart import Apart
from ndif_batch.server.api import api_router
from ndif_batch.server.callers import caller_queue
from ndif_batch.server.dashboard.app import Beside, Dashboard
from ndif_batch.server.dashboard.live import Heart
from ndif_batch.server.gate import Gate
from ndif_batch.server.metrics import metrics
from ndif_batch.server.tags import answer

beside = APIRouter()
"""Routes that are no method of the API."""


def create_app(queue: LocalQueue, settings: Settings, stopping: Callable[[], bool] = lambda: False) -> FastAPI:
    """What serves ``queue`` and the archives, models and pilots that ``settings`` name.

    Answers that go on for long end when the server is ``stopping``.
    """
    app = FastAPI(
        title="ndif-batch", version="1", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.queue = queue
    app.state.apart = Apart()
    app.state.settings = settings.model_copy(update={"url": ""})
    for router in (api_router(), archive.router, beside):
        app.router.routes.extend(router.routes)
    app.add_middleware(Gate, queue=queue, limits=settings.server)
    pages = Dashboard(queue, app.state.settings, app.state.apart, Heart(queue, stopping))
    app.add_middleware(Beside, dashboard=pages.application())
    problems.install(app)
    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with the token and the form of errors."""
    text = app.openapi()
    schemas = text["components"]["schemas"]
    for validation in ("HTTPValidationError", "ValidationError"):
        schemas.pop(validation, None)
    schemas[ProblemDetails.__name__] = ProblemDetails.model_json_schema()
    told = {problems.MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}}}
    for path in text["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {
                "4XX": {"description": "The request is wrong or not allowed.", "content": told},
                "5XX": {"description": "The server cannot serve it now.", "content": told},
            }
    text["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    text["security"] = [{"token": []}]
    text["paths"]["/healthz"]["get"]["security"] = []
    return text


@beside.get(f"{PREFIX}/openapi.json", operation_id="openapi", summary="This document", response_model=dict[str, Any])
def openapi(request: Request) -> Response:
    """Whoever has a token may read it."""
    return answer(request, json.dumps(document(request.app)).encode())


@beside.post(
    f"{PREFIX}/worker",
    operation_id="worker",
    summary="A call of the workers' queue",
    response_class=Response,
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}},
)
async def worker(request: Request) -> Response:
    """The messages of `ndif_batch/queue/wire.py`, each of which may be repeated. Needs the scope `work`."""
    from anyio.to_thread import run_sync

    queue = caller_queue(request, Scope.WORK).queue
    reply = await run_sync(serve, queue, await request.body())
    return Response(reply, media_type="application/json")


@beside.put(
    f"{PREFIX}/constants/{{digest}}",
    operation_id="put_constant",
    summary="Store a constant tensor: a safetensors file, under the BLAKE2b-256 of its bytes",
    status_code=204,
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def put_constant(request: Request, digest: str) -> Response:
    """Needs the scope `write`."""
    from anyio.to_thread import run_sync

    await run_sync(caller_queue(request, Scope.WRITE).store_constant, digest, await request.body())
    return Response(status_code=204)


@beside.get("/metrics", operation_id="metrics", summary="What Prometheus reads", response_class=Response)
def prometheus(request: Request) -> Response:
    """For who sees all: readers and administrators. Ages and rates differ at each look, so that it has no tag."""
    found = caller_queue(request, Scope.READ)
    found.require_all()
    return Response(metrics(found.queue, found.server_settings.archive), media_type=CONTENT_TYPE_LATEST)


@beside.get("/healthz", operation_id="healthz", summary="Whether the server can reach its database")
def healthz(request: Request) -> dict[str, str]:
    """Needs no token, and tells nothing else."""
    request.app.state.queue.now()
    return {"status": "ok"}
