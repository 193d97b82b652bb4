"""Where nnsight's code meets an open recording: its tracers run a model, and its envoys call modules.

Both ask whether a recording is open in this thread or task, and do what they always did if none is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.tracer import InterleavingTracer, ScanningTracer

if TYPE_CHECKING:
    from ndif_batch.compat.nnsight.recording import Recording

_OPEN: ContextVar[Recording | None] = ContextVar("ndif_batch_nnsight_recording", default=None)


def recording() -> Recording | None:
    """The open recording, or ``None``."""
    return _OPEN.get()


@contextmanager
def recorded_by(recording: Recording | None) -> Iterator[None]:
    """Inside, traces are recorded instead of run; with ``None`` they are run."""
    token = _OPEN.set(recording)
    try:
        yield
    finally:
        _OPEN.reset(token)


class Recorded:
    """An envoy whose model is not run: what a tracer would have run is recorded."""

    def __init__(self, envoy: Any, recording: Recording) -> None:
        self.envoy = envoy
        self._recording = recording

    def __getattr__(self, name: str) -> Any:
        return getattr(self.envoy, name)

    def interleave(self, fn: Any, *, batcher: Any, **options: Any) -> None:
        """nnsight's call to run ``fn`` on what ``batcher`` has, with the blocks that wait on the interleaver."""
        self._recording.record(self.envoy, fn, batcher, options)


def _through_recording(execute: Callable[..., None]) -> Callable[..., None]:
    def run(tracer: Any, code: Any) -> None:
        recording = _OPEN.get()
        if isinstance(tracer, ScanningTracer):  # it computes shapes alone, here
            with recorded_by(None):
                execute(tracer, code)
            return
        if recording is not None:
            tracer.envoy = Recorded(tracer.envoy, recording)
        execute(tracer, code)

    return run


def _or_recorded(call: Callable[..., Any]) -> Callable[..., Any]:
    def apply(envoy: Any, *args: Any, hook: bool = False, **kwargs: Any) -> Any:
        recording = _OPEN.get()
        if recording is not None and recording.knows(envoy):
            return recording.call(envoy, args, kwargs)
        return call(envoy, *args, hook=hook, **kwargs)

    return apply


InterleavingTracer.execute = _through_recording(InterleavingTracer.execute)
Envoy.__call__ = _or_recorded(Envoy.__call__)
