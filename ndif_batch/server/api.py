"""The routes of :class:`ndif_batch.queue.api.Api`: each calls the method of its name for who asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from inspect import Parameter, Signature
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Body, Header, Path, Query
from pydantic import TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from ndif_batch.errors import UsageError
from ndif_batch.queue.api import MOST, Submission
from ndif_batch.queue.http import ENDPOINTS
from ndif_batch.queue.once import Once
from ndif_batch.queue.routes import ACTOR, IDEMPOTENCY_KEY, PREFIX, Argument, Endpoint, Where, plain_key
from ndif_batch.server.callers import caller_queue
from ndif_batch.server.tags import JSON, answer

BODY = "body"
KEY = "idempotency_key"
KEY_MEANING = (
    "Under the same key an equal request of the same user is carried out once within a day, and gets the first answer"
    " again; another request is refused with 422, and with 409 one whose first is not yet answered. Errors"
    " are not kept."
)


@cache
def api_router() -> APIRouter:
    """All routes of the table, in its order."""
    router = APIRouter(prefix=PREFIX)
    for endpoint in ENDPOINTS.values():
        first, _, rest = endpoint.summary.partition("\n")
        router.add_api_route(
            endpoint.route.path,
            _handler(endpoint),
            methods=[endpoint.route.verb],
            operation_id=endpoint.name,
            summary=first.replace("``", "`").rstrip("."),
            description=f"{rest.strip().replace('``', '`')}\n\nNeeds the scope `{endpoint.route.scope}`.".strip(),
            response_model=endpoint.answer_type,
        )
    return router


def _handler(endpoint: Endpoint) -> Callable[..., Response]:
    acts = ACTOR in endpoint.signature.parameters

    def handle(request: Request, **given: Any) -> Response:
        queue = caller_queue(request, endpoint.route.scope)
        arguments = _arguments(endpoint, given)
        if endpoint.route.following is not None:
            arguments["limit"] = arguments["limit"] or MOST
        if acts:
            arguments[ACTOR] = queue.caller.user
        key = given.get(KEY)
        asked = queue if key is None else Once(queue, queue.queue, queue.caller.user, plain_key(key))
        return _response(request, endpoint, arguments, getattr(asked, endpoint.name)(**arguments))

    setattr(handle, "__signature__", Signature(_parameters(endpoint)))  # noqa: B010 -- FastAPI reads it
    handle.__name__ = endpoint.name
    return handle


def _parameters(endpoint: Endpoint) -> list[Parameter]:
    """What FastAPI is to find in a request."""
    found = [Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request)]
    found += [_parameter(one, Path()) for one in endpoint.at(Where.PATH)]
    found += [_parameter(one, Query()) for one in endpoint.at(Where.QUERY)]
    if endpoint.body_type is not None:
        found.append(Parameter(BODY, Parameter.KEYWORD_ONLY, annotation=_body(endpoint.body_type)))
    if endpoint.route.verb == "POST":
        kind = Annotated[str | None, Header(alias=IDEMPOTENCY_KEY, description=KEY_MEANING)]
        found.append(Parameter(KEY, Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    return found


def _body(kind: Any) -> Any:
    """A body as the document has it: no text is a number, and no number true or false.

    A submission may be too large to be read twice; graph and space, which are most of it, have checks of their own.
    """
    annotated: Any = Annotated
    if kind is Submission:
        return annotated[kind, Body()]
    adapter = TypeAdapter[Any](kind)

    def strictly(data: Any, lenient: ValidatorFunctionWrapHandler) -> Any:
        lenient(data)
        try:
            return adapter.validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise PydanticCustomError("strict", "{what}", {"what": f"{where}: {first['msg']}"}) from None

    return annotated[kind, WrapValidator(strictly), Body()]


def _parameter(argument: Argument, where: Any) -> Parameter:
    annotated: Any = Annotated
    kind = annotated[argument.hint, where]
    return Parameter(argument.name, Parameter.KEYWORD_ONLY, default=argument.default, annotation=kind)


def _arguments(endpoint: Endpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the method from what FastAPI found."""
    arguments = {name: value for name, value in given.items() if name not in (BODY, KEY)}
    body = given.get(BODY)
    if endpoint.whole is not None:
        arguments[endpoint.whole] = _keyed(body, given.get(KEY)) if isinstance(body, Submission) else body
    elif body is not None:
        arguments |= {name: getattr(body, name) for name in type(body).model_fields}
    return arguments


def _keyed(submission: Submission, header: str | None) -> Submission:
    """The submission with the key of the header, which then lasts as long as the job."""
    if header is None or plain_key(header) == submission.key:
        return submission
    if submission.key is not None:
        raise UsageError("the header Idempotency-Key and `key` in the body differ")
    return replace(submission, key=plain_key(header))


def _response(request: Request, endpoint: Endpoint, arguments: Mapping[str, Any], found: Any) -> Response:
    body = endpoint.answer.dump_json(found)
    if endpoint.route.verb != "GET":
        return Response(body, media_type=JSON, headers={"Cache-Control": "no-store"})
    headers = {}
    following = endpoint.route.following
    if following is not None and len(found) == arguments["limit"]:
        path = {argument.name for argument in endpoint.at(Where.PATH)}
        query = {name: value for name, value in arguments.items() if value is not None and name not in path}
        headers["Link"] = f'<{request.url.path}?{urlencode({**query, **following(found)}, doseq=True)}>; rel="next"'
    return answer(request, body, headers)
