"""The calls of a worker and their answers as JSON, from the signatures of ``WorkerQueue``; strict at both ends."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model, model_validator

from ndif_batch.errors import NdifBatchError, UnavailableError, UsageError
from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.queue.records import JobRecord, Lease, ShardRecord

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Leased(BaseModel):
    """Leases with each job once: a job and its graph are large, and most leases are of few jobs."""

    model_config = STRICT
    jobs: Sequence[JobRecord]
    shards: Sequence[ShardRecord]

    @model_validator(mode="after")
    def _whole(self) -> Leased:
        missing = {shard.job_id for shard in self.shards} - {job.id for job in self.jobs}
        if missing:
            raise ValueError(f"shards without their jobs {sorted(missing)}")
        return self

    @classmethod
    def pack(cls, leases: Sequence[Lease]) -> Leased:
        """What is sent."""
        jobs = {lease.job.id: lease.job for lease in leases}
        return cls(jobs=list(jobs.values()), shards=[lease.shard for lease in leases])

    def unpack(self) -> list[Lease]:
        """What was meant."""
        jobs = {job.id: job for job in self.jobs}
        return [Lease(shard, jobs[shard.job_id]) for shard in self.shards]


class Problem(BaseModel):
    """An error: the class is found by its ``code``, ``details`` are what the class adds."""

    model_config = STRICT
    code: str
    message: str
    hint: str | None
    details: dict[str, Any]


class Refusal(BaseModel):
    """A reply that is an error."""

    model_config = STRICT
    error: Problem


@dataclass(frozen=True, slots=True)
class Call:
    """The two messages of one call."""

    request: type[BaseModel]
    reply: type[BaseModel]


def _call(name: str) -> Call:
    method = getattr(WorkerQueue, name)
    hints = get_type_hints(method)
    answer = Leased if name == "lease" else hints["return"]
    literal: Any = Literal[name]
    arguments: dict[str, Any] = {
        parameter.name: (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
        for parameter in list(inspect.signature(method).parameters.values())[1:]
    }
    request = create_model(f"{name} request", __config__=STRICT, call=(literal, name), **arguments)
    reply = create_model(f"{name} reply", __config__=STRICT, answer=(answer, ...))
    return Call(request, reply)


CALLS: Mapping[str, Call] = {
    name: _call(name) for name, _ in inspect.getmembers(WorkerQueue, inspect.isfunction) if not name.startswith("_")
}


def _classes(root: type[NdifBatchError]) -> dict[str, type[NdifBatchError]]:
    """Classes by their codes; of those that share one, the parent."""
    found = {root.code: root}
    for child in root.__subclasses__():
        found = _classes(child) | found
    return found


ERRORS: Mapping[str, type[NdifBatchError]] = _classes(NdifBatchError)


class _Named(BaseModel):
    call: str


def request_to_json(call: str, arguments: Mapping[str, Any]) -> bytes:
    """A call with its arguments by name; ``UsageError`` for what is not of their types."""
    with _refused(UsageError, call):
        return CALLS[call].request(**arguments).model_dump_json().encode()


def request_from_json(data: bytes) -> tuple[str, dict[str, Any]]:
    """The name of a call and its arguments; ``UsageError`` for anything that is no request."""
    with _refused(UsageError, "request"):
        call = _Named.model_validate_json(data).call
    if call not in CALLS:
        raise UsageError(f"a worker's queue has no call {call!r}")
    with _refused(UsageError, call):
        request = CALLS[call].request.model_validate_json(data)
    return call, {name: getattr(request, name) for name in type(request).model_fields if name != "call"}


def answer_to_json(call: str, answer: Any) -> bytes:
    """What a call gave."""
    packed = Leased.pack(answer) if call == "lease" else answer
    return CALLS[call].reply(answer=packed).model_dump_json().encode()


def error_to_json(error: NdifBatchError) -> bytes:
    """What a call raised."""
    problem = Problem(code=error.code, message=error.message, hint=error.hint, details=details(error))
    return Refusal(error=problem).model_dump_json().encode()


def answer_from_json(call: str, data: bytes) -> Any:
    """What a call gave, or raises what it raised.

    ``UnavailableError`` for what is no reply to it: something between the two ends speaks, or another version.
    """
    with _refused(UnavailableError, f"the reply to {call}"):
        expected: Any = CALLS[call].reply | Refusal
        reply: Any = TypeAdapter(expected).validate_json(data)
        if not isinstance(reply, Refusal):
            return reply.answer.unpack() if call == "lease" else reply.answer
    problem = reply.error
    raise raised(problem.code, problem.message, problem.hint, problem.details)


def details(error: NdifBatchError) -> dict[str, Any]:
    """What the error's class adds."""
    return {name: value for name, value in vars(error).items() if name not in ("message", "hint")}


def raised(code: str, message: str, hint: str | None, details: Mapping[str, Any]) -> NdifBatchError:
    """The error as it was raised; its message is complete, so that the constructor of its class is left out."""
    kind = ERRORS.get(code, NdifBatchError)
    error = kind.__new__(kind, message)
    NdifBatchError.__init__(error, message, hint=hint)
    vars(error).update(details)
    return error


def usage(what: str, error: ValidationError) -> UsageError:
    """What is wrong with an argument."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{what}: {where + ': ' if where else ''}{first['msg']}")


@contextmanager
def _refused(kind: type[NdifBatchError], what: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise kind(f"{what}: {where + ': ' if where else ''}{first['msg']}") from None
