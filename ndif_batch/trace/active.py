"""The recording that is open in this thread or task, if one is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ndif_batch.trace.place import refusal

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder
    from ndif_batch.trace.tree import Tree

_OPEN: ContextVar[Recorder | None] = ContextVar("ndif_batch_recording", default=None)


def open_recorder() -> Recorder | None:
    """The open recording, or ``None``."""
    return _OPEN.get()


def recorder() -> Recorder:
    """The open recording; ``TraceError`` if none is."""
    found = _OPEN.get()
    if found is None:
        raise refusal("nothing is being recorded here", hint="do this inside `with lm.trace() as t:`")
    return found


def session(tree: Tree) -> Recorder | None:
    """The recording of the session that is open, which a trace of this model joins; None if none is."""
    found = _OPEN.get()
    if found is None or not found.is_session:
        return None
    if found.tree is not tree:
        raise refusal("the traces of a session are of one model", hint="open them from the same LanguageModel")
    if found.has_open_run:
        raise refusal("a trace inside an invoke cannot be recorded", hint="close the invoke before")
    return found


def start(recorder: Recorder) -> None:
    """Opens a recording; ``TraceError`` if one is open already."""
    if _OPEN.get() is not None:
        raise refusal("a trace inside a trace cannot be recorded", hint="use `with t.invoke(prompt):` for another run")
    _OPEN.set(recorder)


def finish() -> None:
    """Closes the open recording."""
    _OPEN.set(None)
