"""The one tree of errors: each has a stable code, says what was wrong, where, and what to do.

NdifBatchError
├── UsageError            the caller's input is wrong                         exit 2
│   ├── GraphError        a graph breaks a rule of its schema (names the node)
│   ├── ShapeError        an operation cannot take the shapes it gets
│   ├── TraceError        an experiment cannot be recorded as a graph
│   ├── SweepError        a sweep or parameter space is wrong
│   ├── ModelError        a model, its tokenizer or a module path is wrong
│   ├── SettingsError     a setting is wrong
│   └── KeyReusedError    an idempotency key stands for another request
├── NotFoundError         no such job, model, file, result                    exit 3
├── NotAllowedError       the caller may not do this                          exit 4
│   └── NotAuthenticatedError   nobody knows who the caller is
├── TimedOutError         waited as long as asked                             exit 5
├── UnavailableError      a database, disk or server cannot serve now         exit 6
│   └── BusyError         a server that has too much to do, or was asked too often
├── ConflictError         the state no longer permits the change              exit 2
├── IntegrityError        stored data is damaged                              exit 1
└── TaskError             one task failed while it ran (names the node)       exit 1
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NdifBatchError(Exception):
    """Base of every error this package raises on purpose."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class UsageError(NdifBatchError):
    """The caller's input is wrong."""

    code = "usage"
    exit_code = 2


class GraphError(UsageError):
    """A graph breaks a rule; ``node`` is the offending node's id and ``rule`` the rule's stable name."""

    code = "graph"

    def __init__(self, message: str, *, rule: str, node: int | None = None, hint: str | None = None) -> None:
        where = "" if node is None else f"node {node}: "
        super().__init__(f"{where}{message} [{rule}]", hint=hint)
        self.node = node
        self.rule = rule


class ShapeError(UsageError):
    """An operation cannot take the shapes or types it gets."""

    code = "shape"


class TraceError(UsageError):
    """An experiment cannot be recorded as a graph."""

    code = "trace"


class SweepError(UsageError):
    """A sweep or a parameter space is wrong; ``file``, ``line`` (from 1) and ``key`` say where, if it was read."""

    code = "sweep"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(": ".join(part for part in (where, key, message) if part), hint=hint)
        self.file = file
        self.line = line
        self.key = key


class ModelError(UsageError):
    """A model, its tokenizer or a module path is wrong."""

    code = "model"


class SettingsError(UsageError):
    """A setting is wrong."""

    code = "settings"


class KeyReusedError(UsageError):
    """An idempotency key stands for another request."""

    code = "key_reused"


class ConflictError(UsageError):
    """The state no longer permits the change."""

    code = "conflict"


class NotFoundError(NdifBatchError):
    """There is no such job, model, file or result."""

    code = "not_found"
    exit_code = 3


class NotAllowedError(NdifBatchError):
    """The caller may not do this."""

    code = "not_allowed"
    exit_code = 4


class NotAuthenticatedError(NotAllowedError):
    """Nobody knows who the caller is: there is no token, or it is wrong, expired or revoked."""

    code = "not_authenticated"


class TimedOutError(NdifBatchError):
    """Waited as long as asked."""

    code = "timed_out"
    exit_code = 5


class UnavailableError(NdifBatchError):
    """A database, disk or server cannot serve now."""

    code = "unavailable"
    exit_code = 6


class BusyError(UnavailableError):
    """The server has too much to do, or was asked too often; there is use in asking after ``retry_after`` seconds."""

    code = "busy"

    def __init__(self, message: str, *, retry_after: float = 1.0, hint: str | None = "try again in a moment") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class IntegrityError(NdifBatchError):
    """Stored data is damaged."""

    code = "integrity"


class TaskError(NdifBatchError):
    """One task failed while it ran; ``node`` is the graph node that raised, if one did."""

    code = "task"

    def __init__(self, message: str, *, node: int | None = None) -> None:
        super().__init__(message)
        self.node = node


def nearest(name: str, known: Iterable[str], *, limit: int = 8) -> str:
    """A hint for a wrong ``name``: the nearest known name, else a few that exist."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
    return f"there is {shown}" if names else "there is none"
