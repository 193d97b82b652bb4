"""The trace: what a user records inside ``with lm.trace() as t:``, and what can be done with it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from ndif_batch.errors import TraceError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.validate import constants as digests
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import active
from ndif_batch.trace.backend import Backend
from ndif_batch.trace.bindings import Bindings
from ndif_batch.trace.finish import finished
from ndif_batch.trace.generation import Generates, Steps
from ndif_batch.trace.look import look
from ndif_batch.trace.parameters import RESERVED
from ndif_batch.trace.place import refusal
from ndif_batch.trace.recorder import Recorder
from ndif_batch.trace.tree import Tree


class Recording:
    """A block of code that is recorded, with the runs that it opens."""

    def __init__(self, info: ModelInfo, tree: Tree, prompt: Any = None, generates: Generates | None = None) -> None:
        self.info = info
        self._recorder = Recorder(tree)
        self._prompt = prompt
        self._generates = generates
        self._state = "not begun"

    def __enter__(self) -> Self:
        if self._state != "not begun":
            raise refusal("this block was recorded before", hint="begin another: lm.trace()")
        self._begin()
        self._state = "open"
        try:
            if self._prompt is not None:
                self._open(self._prompt, None)
        except BaseException:
            self._leave("left by an error")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave("ended" if error is None else "left by an error")

    def _begin(self) -> None:
        active.start(self._recorder)

    def _leave(self, state: str) -> None:
        active.finish()
        self._state = state

    @contextmanager
    def invoke(self, prompt: Any, *, name: str | None = None) -> Iterator[None]:
        """One run of the model: text, token ids, or a parameter. Sites inside the block belong to it.

        A run is called ``name``, else as its parameter, else ``run0``, ``run1``, …
        """
        if self._prompt is not None:
            raise refusal("this trace has its one prompt already", hint="lm.trace() without a prompt takes invokes")
        self._open(prompt, name)
        try:
            yield
        finally:
            self._recorder.close_run()

    def _open(self, prompt: Any, name: str | None) -> None:
        self._recorder.open_run(prompt, name)
        if self._generates is not None:
            self._recorder.generate(self._generates.count, self._generates.options(self.info.tokenizer))

    @property
    def iter(self) -> Steps:
        """Steps of the open run: ``with t.iter[1:]:`` or ``for step in t.iter[1:4]:``.

        Step 0 sees the prompt, each later one the token that the step before it has chosen. What is read at a slice of
        steps is joined along the tokens; in what is written at the same slice it is each step's own.
        """
        return Steps(self._recorder)

    def all(self) -> Steps:
        """Every step: ``with t.all():``."""
        return self.iter[:]

    @property
    def tokens(self) -> Any:
        """The tokens that the open run generates, ``[steps]``; fewer if it stops early."""
        return self._recorder.tokens()

    def stop(self) -> None:
        """Ends the pass of the open run after what was asked of it before."""
        self._recorder.stop()

    def log(self, name: str, value: Any) -> None:
        """Puts a value into the log of each task."""
        self._recorder.log(name, value)


class Trace(Recording):
    """An experiment: recorded inside its ``with`` block, then a graph that runs here or in thousands of tasks.

    An error inside the block leaves no graph behind.
    """

    def __init__(
        self, info: ModelInfo, tree: Tree, prompt: Any, backend: Backend | None, generates: Generates | None = None
    ) -> None:
        super().__init__(info, tree, prompt, generates)
        self._backend = backend
        self._graph: Graph | None = None
        self._places: tuple[str, ...] = ()
        self._session: Recorder | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._session is not None:
            self._session.broken |= error is not None
        elif error is None:
            self._graph, self._places = finished(self._recorder)

    def _begin(self) -> None:
        self._session = active.session(self._recorder.tree)
        if self._session is None:
            super()._begin()
        else:
            self._recorder = self._session

    def _leave(self, state: str) -> None:
        if self._session is None:
            super()._leave(state)
        else:
            self._session.close_run()
            self._state = state

    @property
    def graph(self) -> Graph:
        """The intervention graph; ``TraceError`` before the block has ended well."""
        if self._session is not None:
            raise refusal("this trace is part of a session", hint="with lm.session() as s: …, then s.run or s.submit")
        if self._graph is None:
            raise refusal(f"there is no graph: the block that records it is {self._state}")
        return self._graph

    @property
    def constants(self) -> Mapping[str, Any]:
        """The tensors that the graph brings along, torch or numpy as they were given, by digest."""
        used = digests(self.graph)
        return {digest: tensor for digest, tensor in self._recorder.constants.items() if digest in used}

    def scan(self, **values: Any) -> dict[str, AbstractTensor]:
        """Shape and dtype of everything saved, for one value of each parameter; nothing is run.

        ``ShapeError`` or ``ModelError`` name the node and the line that recorded it.
        """
        bindings = self._bindings(values)
        found = look(self.info, self.graph, self._places, bindings.point(values), bindings.tensors)
        saved = {name: found[node] for name, node in self.graph.saves().items()}
        return {name: value for name, value in saved.items() if isinstance(value, AbstractTensor)}

    def run(self, *, seed: int = 0, **values: Any) -> Mapping[str, Any]:
        """Runs the experiment once, here and now; the saved tensors by name."""
        bindings = self._bindings(values)
        return self._carrier().run(self.info, self.graph, bindings.point(values), seed=seed, constants=bindings.tensors)

    def submit(
        self,
        *,
        grid: Mapping[str, Iterable[Any]] | None = None,
        zip: Mapping[str, Iterable[Any]] | None = None,  # noqa: A002 -- what it means
        **values: Any,
    ) -> Any:
        """Submits a job of one task for each point of the parameter space; a handle of it.

        Each parameter in ``grid`` is an axis, and so is ``seed`` there; those in ``zip`` vary together along one. Other
        keywords bind parameters that never vary, or are options of the submission (``name``, ``seed``, ``hold``,
        ``key``, ``priority``, …). ``reduce={"resid": {"axis": "prompt", "op": "mean"}}`` keeps a statistic of a save in
        place of every task's value.
        """
        options = {name: value for name, value in values.items() if name in RESERVED}
        fixed = {name: value for name, value in values.items() if name not in RESERVED}
        bindings = self._bindings(grid or {}, zip or {}, fixed)
        return self._carrier().submit(
            self.info,
            self.graph,
            grid=bindings.columns(grid or {}),
            zip=bindings.columns(zip or {}),
            bindings=bindings.point(fixed),
            constants=bindings.tensors,
            **options,
        )

    def _bindings(self, *given: Mapping[str, Any]) -> Bindings:
        bindings = Bindings(self.graph, self.constants)
        bindings.check_names(*given)
        return bindings

    def _carrier(self) -> Backend:
        if self._backend is None:
            raise TraceError("this model only records experiments", hint="make it with Client().language_model(name)")
        return self._backend


class Session(Trace):
    """Several traces as one experiment: later ones use the values of earlier ones, in one task of one graph.

    Each trace inside adds its runs; what is saved, run and submitted is the session's.
    """

    def __init__(self, info: ModelInfo, tree: Tree, backend: Backend | None) -> None:
        super().__init__(info, tree, None, backend)
        self._recorder.is_session = True

    def _begin(self) -> None:
        active.start(self._recorder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None and self._recorder.broken:
            self._leave("left by an error: that of a trace in it")
        else:
            super().__exit__(kind, error, traceback)


class Scan(Recording):
    """Nothing is kept: inside the block ``.shape`` and ``.dtype`` of recorded values are known."""

    def __init__(self, info: ModelInfo, tree: Tree, prompt: Any) -> None:
        super().__init__(info, tree, prompt)
        self._recorder.look = self._look

    def _look(self, node: int) -> Abstract:
        recorder = self._recorder
        graph = Graph(params={}, runs=tuple(recorder.runs), nodes=tuple(recorder.nodes))
        if recorder.parameters.types():
            raise refusal("a scan knows no parameters", hint="put plain values in their places")
        return look(self.info, graph, recorder.places, {}, recorder.constants)[node]
