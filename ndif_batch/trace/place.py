"""Where the user's code is, so that an error of a recording names the line that caused it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FrameType

from ndif_batch.errors import TraceError

_PASSED_OVER = ("ndif_batch.trace", "ndif_batch.compat", "nnsight", "torch", "numpy", "contextlib")
_FROM: ContextVar[FrameType | None] = ContextVar("ndif_batch_place", default=None)


@contextmanager
def seen_from(frame: FrameType | None) -> Iterator[None]:
    """Inside, the user's code is what ``frame`` was called by: for code that waits in another stack."""
    token = _FROM.set(frame)
    try:
        yield
    finally:
        _FROM.reset(token)


def user_place() -> str:
    """``file:line`` of the innermost code that is neither the front end nor a library it is called through."""
    frame: FrameType | None = _FROM.get() or sys._getframe(1)
    while frame is not None and _passed_over(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return "<unknown>" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def refusal(message: str, *, hint: str | None = None) -> TraceError:
    """A ``TraceError`` that begins with the user's file and line."""
    return TraceError(f"{user_place()}: {message}", hint=hint)


@cache
def _passed_over(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _PASSED_OVER)
