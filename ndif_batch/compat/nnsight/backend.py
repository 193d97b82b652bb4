"""The backend that users of nnsight pass to ``model.trace``, ``model.generate`` and ``model.session``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from nnsight.tracing.tracer import push_result
from nnsight.tracing.util import Scope

from ndif_batch.client import Client, JobHandle, LanguageModel
from ndif_batch.compat.nnsight import hooks
from ndif_batch.compat.nnsight.recording import Recording, names_in
from ndif_batch.config import load_settings
from ndif_batch.errors import TaskError, UsageError


class NDIFBatchBackend:
    """Records nnsight's blocks as graphs of the model called ``model`` among the queue's.

    They run in this process, where the weights are, or as jobs: with ``url``, with a client of a server, or with
    ``submit=True``. As with nnsight, saved values are in the block's variables when it has ended. With
    ``blocking=False`` a job is only submitted: it is ``backend.job``, and calling the backend gives the saved values by
    name, or ``None`` before they are there. ``options`` are those of a submission (``name``, ``priority``, …).

    A block must be straight-line code over recorded values; what a graph cannot express raises ``TraceError`` with the
    user's line and what to do instead.
    """

    def __init__(
        self,
        model: str,
        *,
        client: Client | None = None,
        url: str | None = None,
        submit: bool | None = None,
        blocking: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if client is None:
            settings = load_settings()
            client = Client(settings if url is None else settings.model_copy(update={"url": url}))
        elif url is not None:
            raise UsageError("a client has its url already", hint="give one of client and url")
        self.submits = bool(client.settings.url) if submit is None else submit
        if not (self.submits or blocking):
            raise UsageError("what runs in this process is waited for", hint="submit=True, or a url")
        self.model = LanguageModel(model, client)
        self.blocking = blocking
        self.seed = seed
        self.options = options
        self.job: JobHandle | None = None
        self._pending: Recording | None = None

    def __call__(self, tracer: Any = None) -> dict[str, Any] | None:
        """nnsight's call with a tracer whose block is to be run; without one, a job's saved values if it has ended."""
        if tracer is None:
            return self._ended()
        if hooks.recording() is not None:
            tracer.execute(tracer.info.code)
            return None
        with self._recording() as recording, hooks.recorded_by(recording):
            if hasattr(tracer, "envoy"):
                tracer.execute(tracer.info.code)
            else:
                self._session(tracer, recording)
        return None

    def _session(self, tracer: Any, recording: Recording) -> None:
        """All traces of a session are runs of one graph, so that values of one can be used in another."""
        frame = tracer.info.frame
        scope = Scope(dict(frame.f_locals), {}, frame.f_globals)
        recording.show(scope)
        with recording.session():
            exec(tracer.info.code, scope)
        recording.conclude([(scope, names_in(tracer.info.code))])
        push_result(frame, scope)

    def _recording(self) -> Recording:
        again = self.blocking and "key" not in self.options
        return Recording(self.model.info, self._carry_out, again=again)

    def _carry_out(self, recording: Recording, names: Collection[str]) -> Mapping[str, Any] | None:
        """The saved values by name, or ``None`` if they are not waited for."""
        carrier, graph, constants = self.model.backend, *recording.graph()
        assert carrier is not None
        if not self.submits:
            return carrier.run(self.model.info, graph, {}, seed=self.seed, constants=constants)
        options = {"seed": self.seed, **self.options}
        self.job = carrier.submit(self.model.info, graph, grid={}, zip={}, bindings={}, constants=constants, **options)
        self._pending = recording
        return values(self.job.wait(), names) if self.blocking else None

    def _ended(self) -> dict[str, Any] | None:
        if self.job is None or self._pending is None:
            raise UsageError("nothing was submitted through this backend", hint="with model.trace(…, backend=backend):")
        if not self.job.refresh().state.final:
            return None
        saved = self._pending.saved
        results = values(self.job, saved.values)
        self._pending.deliver(results)
        return saved.variables(results)


def values(job: JobHandle, names: Collection[str]) -> dict[str, Any]:
    """What a job of one task has saved; ``TaskError`` if it failed."""
    for failure in job.failures(1):
        raise TaskError(failure.message)
    results = job.results()
    return {name: results.torch(name) for name in names}
