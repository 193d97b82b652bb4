"""From the methods of a protocol to the routes of an API, the same for the server and for who asks it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model

from ndif_batch.errors import UsageError
from ndif_batch.queue.access import Scope

PREFIX = "/v1"
DASHBOARD = "/dashboard"
LOGIN = f"{DASHBOARD}/login"
IDEMPOTENCY_KEY = "Idempotency-Key"
REASON = "NDIF-Reason"
"""The header that says why somebody does something, in UTF-8 as URLs have it; events keep it."""

LONGEST_REASON = 200
KEY = re.compile(r"[ -~]{1,200}")
"""What can be an idempotency key: a string of structured headers (RFC 9651)."""

ACTOR = "actor"
"""The argument that is never sent: the token says who acts."""

Method = TypeVar("Method", bound=Callable[..., Any])
Following: TypeAlias = Callable[[Sequence[Any]], Mapping[str, Any]]


class Where(StrEnum):
    """Where in a request an argument stands."""

    PATH = "path"
    QUERY = "query"
    BODY = "body"


@dataclass(frozen=True, slots=True)
class Route:
    """Which request a method is, and the scope that it needs; the answer to a ``patient`` one may take long.

    ``again``: asked a second time it does no more by itself, so that no answer needs to be kept for its key.
    Of a listing ``following`` tells from a full page which arguments the request of the next one has in their place.
    """

    verb: str
    path: str
    scope: Scope
    patient: bool = False
    again: bool = False
    following: Following | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a method; ``default`` is ``inspect.Parameter.empty`` if it has none."""

    name: str
    hint: Any
    default: Any
    where: Where


@dataclass(frozen=True)
class Endpoint:
    """A method as a request: where its arguments stand, and the type of its answer."""

    name: str
    route: Route
    summary: str
    signature: inspect.Signature
    arguments: tuple[Argument, ...]
    answer_type: Any

    @property
    def path(self) -> str:
        """The whole path."""
        return f"{PREFIX}{self.route.path}"

    @cached_property
    def answer(self) -> TypeAdapter[Any]:
        """Reads and writes the answer."""
        return TypeAdapter(self.answer_type)

    def at(self, where: Where) -> list[Argument]:
        """The arguments that stand there."""
        return [argument for argument in self.arguments if argument.where is where]

    @cached_property
    def whole(self) -> str | None:
        """The argument that is the whole body: the only one there, if it is a record."""
        body = self.at(Where.BODY)
        return body[0].name if len(body) == 1 and is_dataclass(body[0].hint) else None

    @cached_property
    def body_type(self) -> Any:
        """What the body is: a record, or an object of the arguments by name; None without one."""
        body = self.at(Where.BODY)
        if self.whole is not None:
            return body[0].hint
        if not body:
            return None
        empty = inspect.Parameter.empty
        fields: dict[str, Any] = {a.name: (a.hint, ... if a.default is empty else a.default) for a in body}
        title = "".join(word.capitalize() for word in self.name.split("_"))
        made: type[BaseModel] = create_model(
            title, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields
        )
        return made

    @cached_property
    def body(self) -> TypeAdapter[Any]:
        """Reads and writes the body."""
        return TypeAdapter(self.body_type)


def get(path: str, scope: Scope = Scope.READ, *, following: Following | None = None) -> Callable[[Method], Method]:
    """The method asks and changes nothing; arguments that are not in the path are its query."""
    return _routed(Route("GET", path, scope, following=following))


def post(
    path: str, scope: Scope = Scope.WRITE, *, patient: bool = False, again: bool = False
) -> Callable[[Method], Method]:
    """The method changes something; arguments that are not in the path are its body."""
    return _routed(Route("POST", path, scope, patient=patient, again=again))


def put(path: str, scope: Scope = Scope.ADMIN) -> Callable[[Method], Method]:
    """The method sets something to what it is given; repeated, it does no more."""
    return _routed(Route("PUT", path, scope))


def delete(path: str, scope: Scope = Scope.WRITE) -> Callable[[Method], Method]:
    """The method takes something away."""
    return _routed(Route("DELETE", path, scope))


def check_key(key: str) -> str:
    """An idempotency key as it is; ``UsageError`` for what cannot be one."""
    if not KEY.fullmatch(key):
        raise UsageError(f"{key!r} cannot be a key", hint="1 to 200 characters of ASCII")
    return key


def quoted_key(key: str) -> str:
    """An idempotency key as its header has it."""
    escaped = check_key(key).replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def plain_key(header: str) -> str:
    """The inverse of :func:`quoted_key`; a key without quotes is taken as it is."""
    text = header.strip()
    return check_key(re.sub(r"\\(.)", r"\1", text[1:-1]) if len(text) > 1 and text[0] == text[-1] == '"' else text)


def endpoints(protocol: type) -> Mapping[str, Endpoint]:
    """The routes among a protocol's methods, by name, in the order in which they are written."""
    found: dict[str, Endpoint] = {}
    for parent in reversed(protocol.__mro__):
        for name, method in vars(parent).items():
            if hasattr(method, "route"):
                found[name] = _endpoint(name, method)
    return found


def _routed(route: Route) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        setattr(method, "route", route)  # noqa: B010 -- a function's own attribute
        return method

    return mark


def _endpoint(name: str, method: Any) -> Endpoint:
    route: Route = method.route
    hints = get_type_hints(method, include_extras=True)
    signature = inspect.signature(method)
    signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    elsewhere = Where.QUERY if route.verb in ("GET", "DELETE") else Where.BODY
    arguments = tuple(
        Argument(one.name, hints[one.name], one.default, Where.PATH if f"{{{one.name}}}" in route.path else elsewhere)
        for one in signature.parameters.values()
        if one.name != ACTOR
    )
    summary = inspect.getdoc(method) or name
    return Endpoint(name, route, summary, signature, arguments, hints["return"])
