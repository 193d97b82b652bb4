"""Tasks in, saved tensors out: prepares, packs into batches, runs the passes, keeps each task's error its own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal, TypeAlias

import torch

from ndif_batch.engine.again import Again
from ndif_batch.engine.batches import Batch, Prepared, Waiting
from ndif_batch.engine.blocks import FROM_THE_BEGINNING
from ndif_batch.engine.cohort import Cohort, land
from ndif_batch.engine.following import Orders
from ndif_batch.engine.gradients import differentiate
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.memory import free_for_passes, free_here, shown_bytes
from ndif_batch.engine.passes import apply_module, run_pass
from ndif_batch.engine.plan import plan_pass
from ndif_batch.engine.prepare import Preparation
from ndif_batch.engine.routes import Route
from ndif_batch.engine.running import Running
from ndif_batch.engine.saves import copies
from ndif_batch.engine.schedule import BEFORE
from ndif_batch.engine.stopwatch import Stopwatch
from ndif_batch.engine.tasks import Surroundings
from ndif_batch.errors import NdifBatchError, TaskError
from ndif_batch.sweep.task import Task

NanPolicy = Literal["allow", "error"]
LayoutChoice = Literal["auto", "solo"]
Routes: TypeAlias = Mapping[int, Sequence[Route]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the task at ``index`` of those given: its saves (on the CPU, its own memory) or its error.

    ``prints`` are what its ``print`` nodes said, as name and text. ``unsound`` ones are not given: they are run again.
    """

    index: int
    saves: Mapping[str, torch.Tensor]
    error: TaskError | None = None
    prints: tuple[tuple[str, str], ...] = ()
    unsound: bool = False


@dataclass(slots=True)
class Counters:
    """What an engine has done so far; ``estimated_bytes`` is the most that a batch was estimated to take.

    ``busy_seconds`` is how long its device had a batch at work, as the device's own clock tells.
    """

    passes: int = 0
    tasks: int = 0
    tokens: int = 0
    estimated_bytes: int = 0
    busy_seconds: float = 0.0


class _Interrupted(Exception):  # noqa: N818  not an error: a batch is given up
    """Raised between the steps of a generation."""


@dataclass(frozen=True, slots=True)
class _Started:
    """Tasks whose passes are on their way, and what to wait for; or the outcome of one that broke its pass."""

    cohorts: Sequence[Cohort]
    copied: Sequence[torch.cuda.Event]
    stopwatch: Stopwatch | None = None
    broken: Outcome | None = None


CPU_BATCH_TOKENS = 2048
"""More tokens in one pass gain little on a CPU, and a worker that is asked to end finishes its pass first."""
CUDA_BATCH_TOKENS = 65_536
PIPELINED_TOKENS = 4_096
"""Where layers lie on one GPU after another: enough to keep one busy, few enough that work is there for all."""
WINDOW = 16
"""So many batches' tasks are put in order there."""


@dataclass
class Engine:
    """Runs tasks on one loaded model.

    A pass that holds several tasks has at most ``max_batch_tokens`` tokens (``None``: what the device is good for),
    and what it is estimated to need fits into the free memory. ``beside`` is for a second engine of one model: on CUDA
    its passes do not wait for those of the first. A generation is given up, and the call ends without an outcome of
    its tasks, once it is ``interrupted`` between two steps.
    """

    model: LoadedModel
    max_batch_tokens: int | None = None
    counters: Counters = field(default_factory=Counters)
    beside: bool = False
    interrupted: Callable[[], bool] = lambda: False
    _over: list[int] = field(default_factory=list)

    @property
    def batch_tokens(self) -> int:
        """The most tokens of a pass that holds several tasks; where layers lie on several GPUs each has one of many."""
        default = CUDA_BATCH_TOKENS if self.model.device.type == "cuda" else CPU_BATCH_TOKENS
        default = PIPELINED_TOKENS if len(self.model.devices) > 1 else default
        return self.max_batch_tokens or default

    @property
    def batch_places(self) -> int:
        """As many places on the tokens' axis: fewer than tokens where each is an item that costs as much as many."""
        return max(1, self.batch_tokens // self.model.sites.input_tokens)

    @property
    def in_flight(self) -> int:
        """How many batches are under way while the next is made ready: one a GPU through which each goes."""
        return len(self.model.devices)

    def run(
        self,
        tasks: Iterable[Task],
        *,
        nan: NanPolicy = "allow",
        layout: LayoutChoice = "auto",
        constants: Mapping[str, torch.Tensor] | None = None,
    ) -> Iterator[Outcome]:
        """Runs tasks together, whatever their graphs, and gives each one's outcome as it is known, in any order.

        ``nan="error"`` fails a task whose node gives NaN; ``layout="solo"`` runs every task in passes of its own.
        Text in the bindings is tokenised with the model's tokenizer. ``constants`` are the graphs' tensors by digest.

        In the packed layout ``tasks`` are taken as batches fill up, the next beside a GPU at work, and between the
        steps of those that generate, which others join where there is room: they may come from an iterator that learns
        of further tasks, and their constants, meanwhile.

        A branch that holds NaN or infinity would have made NaN, by way of attention, of tokens that it borrows. Its
        task is run once more, with tokens of its own only.
        """
        constants = {} if constants is None else constants
        whole = replace(self, model=self.model.without_borrowing())
        again = Again(lambda unsound: whole._run(unsound, nan, layout, constants, lambda outcomes: outcomes))
        yield from self._run(again.noted(tasks), nan, layout, constants, again.settled)

    def _run(
        self,
        tasks: Iterable[Task],
        nan: NanPolicy,
        layout: LayoutChoice,
        constants: Mapping[str, torch.Tensor],
        settled: Callable[[Iterable[Outcome]], Iterable[Outcome]],
    ) -> Iterator[Outcome]:
        """What :meth:`run` gives; ``settled`` is applied to what comes out together."""
        around = self._surroundings(nan == "error", constants)
        preparation = Preparation(self.model, solo=layout == "solo", constants=constants)
        orders = self._orders(preparation.routes, constants, refuse_nan=nan == "error")
        refused: list[Outcome] = []
        prepared = in_turn(self._prepared(tasks, preparation, refused), packed=self.model.layout.packed)
        if len(self.model.devices) > 1:
            prepared = late_first(prepared, preparation.routes, WINDOW * self.batch_places)
        free = free_for_passes(self.model)
        waiting = Waiting(prepared, self.batch_places, free, self.model.footprint)
        started: list[_Started] = []
        with suppress(_Interrupted):
            while (batch := waiting.batch()) is not None:
                checkpointed = batch.differentiated and batch.bytes(self.model.footprint) > free
                self._estimate(batch, checkpointed=checkpointed)
                for one in self._start(batch, preparation.routes, around, orders, waiting, checkpointed=checkpointed):
                    started.append(one)
                    while len(started) > self.in_flight:
                        yield from settled(self._outcomes([started.pop(0)]))
        yield from settled(self._outcomes(started))
        yield from settled(refused)
        if orders is not None:
            self._over.append(orders.call)

    def _estimate(self, batch: Batch, *, checkpointed: bool = False) -> None:
        needed = batch.bytes(self.model.footprint, checkpointed=checkpointed)
        self.counters.estimated_bytes = max(self.counters.estimated_bytes, needed)

    def _prepared(self, tasks: Iterable[Task], preparation: Preparation, refused: list[Outcome]) -> Iterator[Prepared]:
        """The tasks that can run; what became of the others is put into ``refused``."""
        for index, task in enumerate(tasks):
            try:
                prepared = preparation.task(index, task)
                if prepared.program.differentiated and self.model.split is not None:
                    raise NdifBatchError("a model whose weights are split over processes computes no gradients")
                yield prepared
            except NdifBatchError as error:
                refused.append(Outcome(index, {}, TaskError(str(error), node=getattr(error, "node", None))))

    def follow(
        self,
        tasks: Sequence[Prepared],
        routes: Routes,
        constants: Mapping[str, torch.Tensor],
        *,
        refuse_nan: bool,
    ) -> None:
        """Carries out a batch beside the rank that has it; what comes of it is that one's to tell."""
        with suppress(Exception):
            running = Running(self._surroundings(refuse_nan, constants), packed=self.model.layout.packed)
            running.begin(tasks)
            self._advanced(running, routes, checkpointed=False)
            return
        self._free_memory()

    def _orders(self, routes: Routes, constants: Mapping[str, torch.Tensor], *, refuse_nan: bool) -> Orders | None:
        """How the other ranks of a model that is split hear what they are to run, if this one leads."""
        if self.model.split is None or not self.model.split.ranks.leads:
            return None
        return Orders(self.model, routes, constants, self.beside, refuse_nan, self._over)

    def _surroundings(self, refuse_nan: bool, constants: Mapping[str, torch.Tensor]) -> Surroundings:
        there = cache(lambda digest: constants[digest].to(self.model.device))
        return Surroundings(
            weight=self.model.weight,
            call=self._applied,
            constant=there,
            device=self.model.device,
            spread=self.model.spread,
            refuse_nan=refuse_nan,
        )

    def _applied(self, path: str, args: tuple[Any, ...]) -> Any:
        module, split = self.model.submodule(path), self.model.split
        return apply_module(module, args) if split is None else split.applied(path, module, args, apply_module)

    def _start(
        self,
        batch: Batch,
        routes: Routes,
        around: Surroundings,
        orders: Orders | None,
        waiting: Waiting | None,
        *,
        checkpointed: bool,
    ) -> Iterator[_Started]:
        """Runs a batch, and those of the ``waiting`` that join it; each time that some have ended they are given.

        A GPU is still at work then, so that the next can be made ready. A batch whose pass breaks as a whole is halved
        until the task that breaks it is found. One with gradients that has no memory left is tried once more
        ``checkpointed``.
        """
        running = Running(around, packed=self.model.layout.packed)
        running.begin(batch.tasks)
        failure = None
        while running.tasks and failure is None:
            try:
                if orders is not None:
                    orders.give(batch.tasks)
                started = self._advanced(running, routes, checkpointed=checkpointed)
            except Exception as error:  # noqa: BLE001  whatever breaks a pass must not take the neighbours down
                failure = self._told(error, batch)
                saving = isinstance(error, torch.OutOfMemoryError) and batch.differentiated and not checkpointed
                continue
            yield started
            if running.generates and self.interrupted():
                raise _Interrupted
            if waiting is not None and (joined := running.join(waiting)) is not None:
                batch = joined
                self._estimate(batch)
        if failure is None:
            return
        tasks = running.tasks
        del running
        self._free_memory()
        if len(tasks) == 1 and saving:
            yield from self._start(_batch(tasks), routes, around, orders, None, checkpointed=True)
            return
        if len(tasks) == 1:
            broken = TaskError(f"the model's pass failed: {failure}")
            yield _Started([], (), broken=Outcome(tasks[0].member.index, {}, broken))
            return
        for half in (tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]):
            yield from self._start(_batch(half), routes, around, orders, None, checkpointed=checkpointed)

    def _outcomes(self, batches: Sequence[_Started]) -> Iterator[Outcome]:
        for batch in batches:
            for event in batch.copied:
                event.synchronize()
            self.counters.busy_seconds += batch.stopwatch.seconds() if batch.stopwatch else 0.0
            outcomes = [batch.broken] if batch.broken else list(_outcomes(batch.cohorts))
            self.counters.tasks += 0 if batch.broken else sum(not outcome.unsound for outcome in outcomes)
            yield from outcomes

    def _told(self, error: Exception, batch: Batch) -> str:
        """What went wrong, in one line; of memory how much was needed."""
        if isinstance(error, torch.OutOfMemoryError):
            need, free = batch.bytes(self.model.footprint), free_for_passes(self.model)
            return f"out of memory: it needs about {need} bytes ({shown_bytes(need)}), {shown_bytes(free)} are free"
        return str(error).splitlines()[0] if str(error) else type(error).__name__

    def _advanced(self, running: Running, routes: Routes, *, checkpointed: bool) -> _Started:
        """Runs passes: one of each task if some generate, else all. Gives those that have left."""
        with torch.cuda.stream(self._stream), self._together(), torch.no_grad():
            stopwatch = Stopwatch(self.model.device)
            left = self._round(running, routes, checkpointed=checkpointed)
            while running.cohorts and not running.generates:
                left += self._round(running, routes, checkpointed=checkpointed)
            land(left)
            stopwatch.stop()
            started = _Started(left, copies() if left else (), stopwatch)
        running.let_go(left)
        return started

    def _round(self, running: Running, routes: Routes, *, checkpointed: bool) -> list[Cohort]:
        for cohort in running.cohorts:
            if not cohort.stage:
                cohort.advance(*BEFORE)
        for beside in running.passes():
            plan = plan_pass(beside, routes, self.model.layout.moments, running.cache)
            if plan is None:
                continue
            ran = run_pass(self.model, plan, running.cache, checkpointed=checkpointed and plan.differentiated)
            if plan.differentiated:
                differentiate(beside, running.cohorts)
            self.counters.passes += 1
            self.counters.tokens += ran.tokens * self.model.sites.input_tokens
            for cohort in beside:
                if ran.unsound is not None:
                    cohort.unsound[cohort.stage] = ran.unsound
                running.cohorts += cohort.passed(plan.pasts)
        return running.leave()

    def _together(self) -> AbstractContextManager[None]:
        """All ranks of a model that is split are at it, unless they are still trying what it can do."""
        split = self.model.split
        if split is None or not split.ranks.running:
            return nullcontext()
        return split.ranks.one_pass(lambda: free_here(self.model))

    @cached_property
    def _stream(self) -> torch.cuda.Stream | None:
        """The stream of its own that it has, if any."""
        device = self.model.device
        return torch.cuda.Stream(device) if self.beside and device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def _free_memory(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_turn(tasks: Iterable[Prepared], *, packed: bool) -> Iterable[Prepared]:
    """Tasks as they are cut into batches: as given, or those with prompts of equal lengths together."""
    return tasks if packed else sorted(tasks, key=lambda task: [len(prompt) for prompt in task.member.prompts])


def late_first(tasks: Iterable[Prepared], routes: Routes, tokens: int) -> Iterator[Prepared]:
    """Tasks in windows of so many ``tokens``, in each those whose runs leave their trunks late before the others.

    They hardly touch the first of the GPUs on which layers lie, which has time for the others meanwhile. To begin with
    what is short on the first of two machines is best for both (S. M. Johnson, 1954).
    """

    def late(task: Prepared) -> int:
        return -max((route.birth for route in routes[id(task.program)]), default=FROM_THE_BEGINNING)

    window: list[Prepared] = []
    held = 0
    for task in tasks:
        window.append(task)
        held += task.need.tokens
        if held >= tokens:
            yield from sorted(window, key=late)
            window, held = [], 0
    yield from sorted(window, key=late)


def _batch(tasks: Sequence[Prepared]) -> Batch:
    made = Batch()
    for task in tasks:
        made.add(task)
    return made


def _outcomes(cohorts: Sequence[Cohort]) -> Iterator[Outcome]:
    for cohort in cohorts:
        for index, error in cohort.errors.items():
            yield Outcome(index, {}, error)
        unsound = cohort.unsound_places()
        for place, (member, saves, prints) in enumerate(cohort.results()):
            yield Outcome(member.index, saves, None, prints, place in unsound)
