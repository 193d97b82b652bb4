"""One recording: the blocks of nnsight's traces run here, and what they ask of the model is answered with proxies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from types import CodeType, TracebackType
from typing import Any, Self

from nnsight.intervention.interleaver import EarlyStopException, Event, dangling_unwind

from ndif_batch.compat.nnsight.locations import Locations
from ndif_batch.compat.nnsight.prompts import check_forward, generates, token_ids
from ndif_batch.compat.nnsight.recorder import NNsightRecorder
from ndif_batch.compat.nnsight.saved import GONE, Saved
from ndif_batch.compat.nnsight.weights import Weights
from ndif_batch.errors import TaskError, UsageError
from ndif_batch.graph.nodes import Graph, inputs
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import active
from ndif_batch.trace.finish import finished
from ndif_batch.trace.place import refusal, seen_from
from ndif_batch.trace.proxy import Proxy

CarryOut = Callable[["Recording", Collection[str]], Mapping[str, Any] | None]


class Visits:
    """Stands for nnsight's interleaver: no module is ever reached, so a block asks for what it names."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.batcher = None
        self.defer_exceptions = False


class Recording:
    """Traces recorded as one graph of ``info``'s model, which ``carry_out`` then runs.

    That gives results by name, or ``None`` if nobody waits for them. ``again`` says whether it may be called again.
    """

    saved: Saved

    def __init__(self, info: ModelInfo, carry_out: CarryOut, *, again: bool) -> None:
        self.recorder = NNsightRecorder(info)
        self._carry_out = carry_out
        self._again = again
        self._in_session = False
        self._locations: Locations | None = None
        self._prints: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._caches: list[tuple[Any, tuple[str, str], Any]] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        active.start(self.recorder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        active.finish()
        self._open.close()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside, traces are recorded after each other, and run together when it has ended."""
        self._in_session = True
        yield
        self._in_session = False

    def record(self, envoy: Any, fn: Any, batcher: Any, options: Mapping[str, Any]) -> None:
        """nnsight's blocks that wait for ``fn`` of ``envoy``, each in the run of its own prompt."""
        self._meet(envoy)
        blocks = list(envoy.interleaver.mediators)
        runs = [self._open_run(envoy, fn, invoke, {**batcher.extra_kwargs, **options}) for invoke in batcher.invokes]
        self.recorder.close_run()
        workers = [Worker(self, block, _run_of(block, runs)) for block in blocks]
        for run in runs:
            for edit in envoy._edits:
                finish([Worker(self, edit, run)])
        finish(workers)
        for worker in workers:
            self.observe(worker)
        if not self._in_session:
            self.conclude([(block.lcls, names_in(block.code)) for block in blocks])

    def conclude(self, scopes: Collection[tuple[Any, Collection[str]]]) -> None:
        """Runs what was recorded, and puts what was saved into the blocks' variables."""
        saved = Saved(scopes)
        for i, (values, _) in enumerate(self._prints):
            saved.take(f"print.{i}", values)
        for _, (path, slot), value in self._caches:
            saved.take(f"{path}.{slot}", value)
        if not saved.values:
            return
        for value in saved.values.values():
            value.current()
        self._open.close()
        self.saved = saved
        results = self._results(saved)
        if results is None:
            for scope, _ in scopes:
                scope.written.clear()
            return
        self.deliver(results)
        saved.put(results)

    def deliver(self, results: Mapping[str, Any]) -> None:
        """Prints what the blocks have printed, and fills their caches."""
        for values, kwargs in self._prints:
            known = self.saved.resolved(values, results)
            if len(known) == len(values):
                print(*known, **kwargs)
        for cache, selected, value in self._caches:
            known = self.saved.resolved(value, results)
            if known is not GONE:
                cache.observe_selected(selected, known)

    def _results(self, saved: Saved) -> Mapping[str, Any] | None:
        """What is saved by name; less what is of steps that a generation did not take, where nnsight's loops end."""
        try:
            return self._carried_out(saved.values)
        except TaskError:
            late = self._late(saved.values) if self._again else set()
            if not late:
                raise
            warnings.warn(f"a generation stopped before steps of which {', '.join(sorted(late))} are", stacklevel=2)
            return self._carried_out({name: value for name, value in saved.values.items() if name not in late})

    def _carried_out(self, values: Mapping[str, Proxy]) -> Mapping[str, Any] | None:
        end = len(self.recorder.nodes)
        for name, value in values.items():
            self.recorder.save(value, name, None)
        try:
            return self._carry_out(self, list(values)) if values else {}
        finally:
            del self.recorder.nodes[end:], self.recorder.places[end:]

    def _late(self, values: Mapping[str, Proxy]) -> set[str]:
        """Names of values of steps that generations do not take: another run of the graph tells how many they do."""
        tokens: dict[str, Proxy] = {}
        for run in range(len(self.recorder.runs)):
            if self.recorder.steps_of(run) > 1:
                self.recorder.run = run
                tokens[f"run.{run}"] = self.recorder.tokens()
        found = self._carried_out(tokens) or {}
        taken = {int(name.removeprefix("run.")): len(known) for name, known in found.items()}
        late: set[int] = set()
        for i, node in enumerate(self.recorder.nodes):
            step = node.step if isinstance(node.step, int) else 0
            if (node.run in taken and step >= taken[node.run]) or not late.isdisjoint(inputs(node)):
                late.add(i)
        return {name for name, value in values.items() if value.current() in late}

    def graph(self) -> tuple[Graph, dict[str, Any]]:
        """What was recorded, and its constants by digest."""
        graph, _ = finished(self.recorder)
        return graph, self.recorder.constants

    def observe(self, worker: Worker) -> None:
        """Reads what the caches of a block that has ended are to keep; once."""
        caches, worker.block.caches = worker.block.caches, []
        for cache in caches:
            cache.model = self.locations().root
            everything = cache.targets is None
            for step in range(self.recorder.steps_of(worker.run)):
                self.recorder.run, self.recorder.step = worker.run, step or None
                for location, selected in cache.subscriptions().items():
                    if not everything or self.locations().has(location):
                        self._caches.append((cache, selected, self.locations().value(location)))
            self.recorder.step = None

    def knows(self, envoy: Any) -> bool:
        """Whether ``envoy`` is a module of the recorded model: not one that the user has added."""
        return self._locations is not None and self._locations.module(envoy.path) is not None

    def call(self, envoy: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A module applied to values."""
        assert self._locations is not None
        if kwargs:
            raise refusal(f"{envoy.path} takes values by position only", hint="a call has no keyword arguments")
        return self.recorder.call(self._locations.module(envoy.path) or "", args)

    def show(self, scope: Any) -> None:
        """Lets the block of ``scope`` print recorded values, unless it has a ``print`` of its own."""
        if "print" not in scope.shared and "print" not in scope.glbls:
            dict.setdefault(scope, "print", self._print)

    def _print(self, *values: Any, **kwargs: Any) -> None:
        """Prints at once, or when the recorded values among ``values`` are known."""
        if any(isinstance(value, Proxy) for value in values):
            self._prints.append((values, kwargs))
        else:
            print(*values, **kwargs)

    def locations(self) -> Locations:
        """How the model's locations are named."""
        assert self._locations is not None
        return self._locations

    def _meet(self, envoy: Any) -> None:
        if envoy.parent is not None:
            raise refusal(f"{envoy.path} is a part of a model, and only models are run", hint="trace the whole model")
        if self._locations is None:
            self._locations = Locations(self.recorder, envoy)
            self.recorder.know_weights(envoy._module)
            self._open.enter_context(Weights(self.recorder))
        elif self._locations.root._module is not envoy._module:
            raise refusal("a session records one model", hint="one session for each model")

    def _open_run(self, envoy: Any, fn: Any, invoke: Any, options: Mapping[str, Any]) -> int:
        name = fn if isinstance(fn, str) else fn.__name__
        if name not in ("__call__", "_call", "generate"):
            raise refusal(f"model.{name} cannot be recorded", hint="model.trace, or model.generate")
        args, given = envoy._batch([invoke], fn)
        given = {**given, **options}
        ids = token_ids(args, given)
        self.recorder.close_run()
        self.recorder.open_run(ids, None)
        run = self.recorder.run
        if name == "generate":
            how = generates(given, envoy._module.generation_config)
            self.recorder.generate(how.count, how.options(None))
        else:
            check_forward(given)
        self.locations().prompts[run] = ids
        return run


class Worker:
    """A block of nnsight's in the run that it is about."""

    def __init__(self, recording: Recording, block: Any, run: int) -> None:
        self.recording = recording
        self.recorder = recording.recorder
        self.block = block
        self.run = run

    @property
    def waits(self) -> bool:
        """Whether it waits for other blocks."""
        return self.block.pending is not None and self.block.pending.event is Event.BARRIER

    def start(self) -> None:
        """Runs the block to the first thing that it asks for."""
        context, run = copy_context(), self.block._run
        self.recording.show(self.block.lcls)
        self.recorder.run = self.run
        self.block._run = lambda: context.run(run)
        try:
            self._resume(self.block.start, Visits())
        finally:
            del self.block._run

    def go_on(self) -> bool:
        """Answers what the block asks for until it has ended or waits for others; whether it asked for anything."""
        went = False
        while self.block.pending is not None and not self.waits:
            self._answer(self.block.pending)
            went = True
        return went

    def _answer(self, pending: Any) -> None:
        step = pending.iteration
        self.recorder.run, self.recorder.step = self.run, step or None
        if step and step >= self.recorder.steps_of(self.run):
            self._cut_short()
            return
        try:
            with seen_from(self.block.worker.gr_frame):
                answer = self.recording.locations().answer(pending)
        except UsageError as error:
            self._resume(self._throw, error)
        else:
            self._resume(self._switch, answer)

    def _cut_short(self) -> None:
        error, warning = dangling_unwind(self.block)
        try:
            self._throw(error)
        except type(error) as thrown:
            if thrown is not error:
                raise
            self.block.pending = None
            if warning is not None:
                warnings.warn(warning, stacklevel=2)

    def _switch(self, answer: Any) -> None:
        self.block.pending = self.block.switch(answer)

    def _throw(self, error: BaseException) -> None:
        self.block.pending = self.block.worker.throw(error)

    def _resume(self, step: Callable[[Any], None], given: Any) -> None:
        try:
            step(given)
        except EarlyStopException:
            self.block.pending = None
            for value in self.recorder.kept:
                value.current()
            self.recording.observe(self)
            self.recorder.run = self.run
            self.recorder.stop()


def finish(workers: list[Worker]) -> None:
    """Runs blocks to their ends, one after the other; those that wait at a barrier go on when it has released them."""
    for worker in workers:
        worker.start()
        worker.go_on()
    while sum(worker.go_on() for worker in workers):
        pass
    for worker in workers:
        if worker.waits:
            error, _ = dangling_unwind(worker.block)
            worker.block.worker.throw(error)


def names_in(code: CodeType) -> set[str]:
    """The names that a block of code uses, those of functions in it too."""
    inner = [names_in(const) for const in code.co_consts if isinstance(const, CodeType)]
    return {*code.co_names, *code.co_freevars}.union(*inner)


def _run_of(block: Any, runs: list[int]) -> int:
    if block.batch_group is not None:
        first: int = block.batch_group[0]
        return runs[first]
    if len(runs) != 1:
        raise refusal(
            "an invoke without a prompt is about the whole batch, and runs have none in common",
            hint="do this in the invoke of each prompt",
        )
    return runs[0]
