"""The dashboard's application: pages, what they ask for again and again, and what is done from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.errors import NdifBatchError, NotAuthenticatedError
from ndif_batch.queue.routes import DASHBOARD, LOGIN
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.apart import Apart
from ndif_batch.server.dashboard import job, sessions
from ndif_batch.server.dashboard.actions import ACTIONS, Action, carry_out
from ndif_batch.server.dashboard.form import Form
from ndif_batch.server.dashboard.guard import FORM, HEADERS, Guard
from ndif_batch.server.dashboard.live import Heart
from ndif_batch.server.dashboard.pages import PAGES, Page
from ndif_batch.server.dashboard.render import STATIC, html
from ndif_batch.server.dashboard.shown import Shown
from ndif_batch.server.dashboard.visit import Visit
from ndif_batch.server.problems import status_of

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Beside:
    """The dashboard for the paths that are its own, ``app`` for all others."""

    app: ASGIApp
    dashboard: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path == "/":
            await RedirectResponse(f"{DASHBOARD}/")(scope, receive, send)
        elif scope["type"] == "http" and (path == DASHBOARD or path.startswith(f"{DASHBOARD}/")):
            await self.dashboard(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Answers for a queue."""

    queue: LocalQueue
    settings: Settings
    apart: Apart
    heart: Heart
    shown: Shown = field(default_factory=Shown)

    def application(self) -> ASGIApp:
        """All its routes."""
        routes = [
            Route("/login", self.login, methods=["GET", "POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/live", self.live),
            *(Route(page.path, self._page(page)) for page in PAGES),
            Route("/jobs/{job:int}/grid", self.grid),
            *(Route(f"/do/{path}", self._act(action), methods=["POST"]) for path, action in ACTIONS.items()),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(
            routes=[Mount(DASHBOARD, routes=routes)],
            middleware=[Middleware(Guard)],
            exception_handlers={NdifBatchError: self.told, Exception: self.unexpected},
        )

    def visit(self, request: Request) -> Visit:
        """The request, if its browser is logged in."""
        caller = sessions.caller(request, self.queue)
        return Visit(request, CallerQueue(caller, self.queue, self.settings, self.apart))

    def login(self, request: Request) -> Response:
        """A form, or what becomes of a code."""
        form: Mapping[str, list[str]] = getattr(request.state, FORM, {})
        code = form.get("code", [""])[0] or request.query_params.get("code", "")
        if not code:
            return html(request, "login.html", {"wrong": ""})
        try:
            return sessions.log_in(request, self.queue, code)
        except NdifBatchError as error:
            return html(request, "login.html", {"wrong": error.message}, status_of(error))

    def logout(self, request: Request) -> Response:
        """End the session."""
        return sessions.log_out(request, self.queue, self.visit(request).me.user)

    def live(self, request: Request) -> Response:
        """The stream that says when to look again."""
        self.visit(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.heart.listen(), media_type="text/event-stream", headers=headers)

    def grid(self, request: Request) -> Response:
        """What the page of a job draws."""
        return JSONResponse(job.grid(self.visit(request)))

    def told(self, request: Request, error: Exception) -> Response:
        """An error as a page, or as a line for a page that is there already."""
        assert isinstance(error, NdifBatchError)
        if isinstance(error, NotAuthenticatedError):
            return _to_login(request)
        status = status_of(error)
        if "hx-request" in request.headers:
            return Response(error.message, status, media_type="text/plain")
        return html(request, "wrong.html", {"error": error, "status": status}, status)

    def _page(self, page: Page) -> Callable[[Request], Response]:
        def show(request: Request) -> Response:
            visit = self.visit(request)
            if page.for_all:
                visit.queue.require_all()
            return self.shown.get(visit, self.heart.version, lambda: _shown(page, visit, self.heart))

        return show

    def unexpected(self, request: Request, error: Exception) -> Response:
        """What nobody foresaw: told in the server's log alone."""
        log.error("dashboard.failed", method=request.method, path=request.url.path, exc_info=error)
        response = self.told(request, NdifBatchError("something went wrong here; the server's log has what"))
        response.headers.update(HEADERS)
        return response

    def _act(self, action: Action) -> Callable[[Request], Response]:
        def act(request: Request) -> Response:
            try:
                done = carry_out(action, self.visit(request).queue, Form(getattr(request.state, FORM)))
            finally:
                self.shown.forget()
            headers = {"X-Told": quote(done.told)} | ({"X-Partly": "yes"} if done.partly else {})
            return PlainTextResponse(done.secret or "", headers=headers)

        return act


def _shown(page: Page, visit: Visit, heart: Heart) -> Response:
    """The page as its visitor may see it."""
    me = visit.me
    values: dict[str, Any] = {
        "title": page.title,
        "current": page.under or page.name,
        "me": me,
        "is_admin": visit.is_admin,
        "may_act": visit.may_act,
        "reason": "needed" if visit.is_admin else "",
        "pages": [one for one in PAGES if one.under is None and (me.sees_all or not one.for_all)],
        "rate": heart.tokens_per_second,
    }
    return html(visit.request, page.template, values | dict(page.read(visit)))


def _to_login(request: Request) -> Response:
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": LOGIN})
    return RedirectResponse(LOGIN, status_code=303)
