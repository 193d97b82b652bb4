"""The queue behind a server: requests over HTTP, from the same table that the server answers by."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from ndif_batch.errors import NdifBatchError, SettingsError, UnavailableError
from ndif_batch.queue import api, wire
from ndif_batch.queue.api import Api, Damage
from ndif_batch.queue.records import JobRecord
from ndif_batch.queue.remote import RemoteQueue
from ndif_batch.queue.routes import ACTOR, IDEMPOTENCY_KEY, PREFIX, REASON, Endpoint, Where, endpoints, quoted_key

if TYPE_CHECKING:
    from ndif_batch.archive import Results
    from ndif_batch.archive.integrity import Problem

SECONDS = 300.0
PATIENT = httpx.Timeout(SECONDS, read=None)
WAIT_SECONDS = 60.0
"""How long a request waits in all for a server that is busy."""

UNIX = "unix:"
BUSY = (429, 503)
ENDPOINTS = endpoints(Api)


class ProblemDetails(BaseModel):
    """An error as ``application/problem+json`` (RFC 9457); ``code`` is the error's own, ``details`` what it adds."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    details: dict[str, Any] = {}


class Line:
    """Requests to one server with one token, each for the ``reason`` if there is one.

    Certificates, which take longer to read than a request, are read where there is one to check.
    """

    def __init__(
        self,
        url: str,
        token: str,
        seconds: float = SECONDS,
        pause: Callable[[float], None] = sleep,
        reason: str | None = None,
    ) -> None:
        if url.startswith(UNIX):
            transport, address = httpx.HTTPTransport(False, uds=url.removeprefix(UNIX)), "http://ndif-batch"
        elif url.startswith(("http://", "https://")):
            transport, address = httpx.HTTPTransport(url.startswith("https://")), url.rstrip("/")
        else:
            raise SettingsError(f"setting 'url': {url!r} is no server", hint=f"http://127.0.0.1:8080 or {UNIX}/path")
        self.url, self._token, self._pause, self._reason = url, token, pause, reason
        headers = {"Authorization": f"Bearer {token}"} | ({} if reason is None else {REASON: quote(reason)})
        try:
            self._http = httpx.Client(transport=transport, base_url=address, headers=headers, timeout=seconds)
        except UnicodeEncodeError:
            raise SettingsError("the token is not one: it has characters that no token has") from None
        weakref.finalize(self, self._http.close)

    def another(self) -> Line:
        """The same, for who goes on when this one is closed."""
        return Line(self.url, self._token, reason=self._reason)

    def send(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> httpx.Response:
        """The server's answer, however long it takes if ``patient``.

        If it says after how long there is use in asking again, it is asked again. Raises the error that it tells,
        ``UnavailableError`` if there is none.
        """
        kind = {} if body is None else {"Content-Type": "application/json"}
        waited = 0.0
        while True:
            reply = self._once(verb, path, query, body, {**kind, **(headers or {})}, patient=patient)
            if reply.is_success:
                return reply
            wait = _retry_after(reply)
            if wait is None or waited + wait > WAIT_SECONDS:
                raise _told(reply, self.url)
            self._pause(wait)
            waited += wait

    def _once(
        self,
        verb: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        patient: bool,
    ) -> httpx.Response:
        try:
            timeout = PATIENT if patient else httpx.USE_CLIENT_DEFAULT
            return self._http.request(verb, path, params=query, content=body, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(f"the server at {self.url} does not answer: {reason}") from None
        except httpx.InvalidURL as error:
            raise SettingsError(f"setting 'url': {self.url!r}: {error}") from None

    def close(self) -> None:
        """Close its connections."""
        self._http.close()


class HttpQueue:
    """An :class:`~ndif_batch.queue.api.Api` at the other end of a line: each method is the request of its route.

    A listing without a limit is asked for page by page.
    """

    def __init__(self, line: Line, key: str | None = None) -> None:
        self._line = line
        self._headers = {} if key is None else {IDEMPOTENCY_KEY: quoted_key(key)}

    def keyed(self, key: str) -> HttpQueue:
        """The same, whose methods that POST are carried out once for an idempotency ``key``."""
        return HttpQueue(self._line, key)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ENDPOINTS:
            raise AttributeError(f"the API has no {name!r}")
        return partial(self._ask, ENDPOINTS[name])

    def _ask(self, endpoint: Endpoint, *args: Any, **named: Any) -> Any:
        bound = endpoint.signature.bind(*args, **named)
        given = {name: value for name, value in bound.arguments.items() if name != ACTOR}
        following = endpoint.route.following
        if following is None or given.get("limit", endpoint.signature.parameters["limit"].default) is not None:
            return self._asked(endpoint, given)
        page = found = self._asked(endpoint, {**given, "limit": api.MOST})
        while len(page) == api.MOST:
            page = self._asked(endpoint, {**given, "limit": api.MOST, **following(page)})
            found = [*found, *page]
        return found

    def _asked(self, endpoint: Endpoint, given: Mapping[str, Any]) -> Any:
        """The answer to one request."""
        where = {argument.name: quote(str(given[argument.name]), safe="") for argument in endpoint.at(Where.PATH)}
        asked = {one.name: given.get(one.name) for one in endpoint.at(Where.QUERY)}
        query = {name: _text(value) for name, value in asked.items() if value is not None}
        reply = self._line.send(
            endpoint.route.verb,
            endpoint.path.format_map(where),
            query=query,
            body=_body(endpoint, given),
            headers=self._headers if endpoint.route.verb == "POST" else None,
            patient=endpoint.route.patient,
        )
        return _answer(endpoint, reply, self._line.url)

    def put_constant(self, digest: str, data: bytes) -> None:
        """Store a constant tensor."""
        kind = {"Content-Type": "application/octet-stream"}
        self._line.send("PUT", f"{PREFIX}/constants/{quote(digest, safe='')}", body=data, headers=kind)

    def open_results(self, record: JobRecord) -> Results | None:
        """See :class:`~ndif_batch.queue.api.ClientQueue`: read through the server, as far as it is looked at."""
        from ndif_batch.archive import Results
        from ndif_batch.archive.remote import RemotePath
        from ndif_batch.errors import NotFoundError

        root = f"{PREFIX}/archive/{record.id}"
        own = HttpQueue(self._line.another())  # as a folder can be read when the queue is closed
        place = RemotePath(
            f"{self._line.url}{root}",
            partial(own._file, root),
            partial(own._names, root),
            partial(own._problems, record.id),
        )
        try:
            return Results(place)
        except NotFoundError:
            return None

    def _file(self, root: str, name: str, span: str | None = None) -> bytes | None:
        from ndif_batch.errors import NotFoundError

        try:
            headers = {} if span is None else {"Range": f"bytes={span}"}
            return self._line.send("GET", f"{root}/{quote(name)}", headers=headers).content
        except NotFoundError:
            return None

    def _names(self, root: str, folder: str) -> list[str]:
        path = f"{root}/{quote(folder)}/" if folder else f"{root}/"
        names: list[str] = self._line.send("GET", path).json()
        return names

    def _problems(self, job_id: int) -> list[Problem]:
        from ndif_batch.archive.integrity import Problem

        found: list[Damage] = self._ask(ENDPOINTS["damage"], job_id)
        return [Problem(one.path, one.what, range(one.first_task, one.first_task + one.tasks)) for one in found]

    def close(self) -> None:
        """Close its connections."""
        self._line.close()


class RemoteApi(Api, Protocol):
    """The type of :class:`HttpQueue`, whose methods are made at run time."""

    def keyed(self, key: str) -> RemoteApi:
        """The same, whose methods that POST are carried out once for an idempotency ``key``."""

    def put_constant(self, digest: str, data: bytes) -> None:
        """Store a constant tensor."""

    def close(self) -> None:
        """Close its connections."""


def connect(url: str, token: str, reason: str | None = None) -> RemoteApi:
    """The queue behind the server at ``url``, whose events tell the ``reason``; ``SettingsError`` for no URL."""
    return cast("RemoteApi", HttpQueue(Line(url, token, reason=reason)))


class HttpWorkerQueue(RemoteQueue):
    """The workers' queue behind a server."""

    def __init__(self, line: Line) -> None:
        super().__init__(lambda request: line.send("POST", f"{PREFIX}/worker", body=request).content)
        self._line = line

    def __enter__(self) -> HttpWorkerQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()


def _text(value: Any) -> Any:
    """A value of a query."""
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _body(endpoint: Endpoint, given: Mapping[str, Any]) -> bytes | None:
    if endpoint.body_type is None:
        return None
    if endpoint.whole is not None:
        return endpoint.body.dump_json(given[endpoint.whole])
    names = [argument.name for argument in endpoint.at(Where.BODY)]
    try:
        made = endpoint.body_type(**{name: given[name] for name in names if name in given})
    except ValidationError as error:
        raise wire.usage(endpoint.name, error) from None
    return endpoint.body.dump_json(made)


def _answer(endpoint: Endpoint, reply: httpx.Response, url: str) -> Any:
    try:
        return endpoint.answer.validate_json(reply.content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnavailableError(
            f"{url} does not answer as a server of this version: {endpoint.name}: {where}: {first['msg']}"
        ) from None


def _retry_after(reply: httpx.Response) -> float | None:
    """After how many seconds a busy server wants to be asked again."""
    text = reply.headers.get("retry-after", "")
    return max(1.0, float(text)) if reply.status_code in BUSY and text.isdecimal() else None


def _told(reply: httpx.Response, url: str) -> NdifBatchError:
    try:
        problem = ProblemDetails.model_validate_json(reply.content)
    except ValidationError:
        return UnavailableError(f"the server at {url} answers with {reply.status_code} {reply.reason_phrase}")
    return wire.raised(problem.code, problem.detail, problem.hint, problem.details)
