"""Tasks in, saved tensors out: prepares, packs into batches, runs the passes, keeps each task's error its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ndif_batch.engine.interpreter import Surroundings, TaskRun
from ndif_batch.engine.model import LoadedModel
from ndif_batch.engine.passes import apply_module, plan_pass, run_pass
from ndif_batch.engine.program import BEFORE, Program, compile_task, optimise, touched
from ndif_batch.errors import NdifBatchError, TaskError
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.sites import SiteTensor, SiteValue
from ndif_batch.models.tokenizer import concrete
from ndif_batch.sweep.task import Task

NanPolicy = Literal["allow", "error"]
LayoutChoice = Literal["auto", "solo"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the task at ``index`` of those given: its saves (on the CPU, its own memory) or its error.

    ``prints`` are what its ``print`` nodes said, as name and text.
    """

    index: int
    saves: Mapping[str, torch.Tensor]
    error: TaskError | None = None
    prints: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Counters:
    """What an engine has done so far."""

    passes: int = 0
    tasks: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    index: int
    seed: int
    program: Program
    alone: bool


@dataclass
class Engine:
    """Runs tasks on one loaded model. ``max_batch_tokens`` bounds the tokens of a pass that holds several tasks."""

    model: LoadedModel
    max_batch_tokens: int = 1024
    counters: Counters = field(default_factory=Counters)

    def run(
        self,
        tasks: Sequence[Task],
        *,
        nan: NanPolicy = "allow",
        layout: LayoutChoice = "auto",
        constants: Mapping[str, torch.Tensor] | None = None,
    ) -> Iterator[Outcome]:
        """Runs tasks together, whatever their graphs, and gives each one's outcome as it is known, in any order.

        ``nan="error"`` fails a task whose node gives NaN; ``layout="solo"`` runs every task in passes of its own.
        Text in the bindings is tokenised with the model's tokenizer. ``constants`` are the graphs' tensors by digest.
        """
        prepared: list[_Prepared] = []
        optimised: dict[int, tuple[Graph, tuple[int, ...]]] = {}
        for index, task in enumerate(tasks):
            try:
                if id(task.graph) not in optimised:
                    optimised[id(task.graph)] = optimise(task.graph)
                prepared.append(self._prepare(index, task, optimised[id(task.graph)], solo=layout == "solo"))
            except NdifBatchError as error:
                yield Outcome(index, {}, TaskError(str(error), node=getattr(error, "node", None)))
        for batch in self._batches(prepared):
            yield from self._run_batch(batch, nan, constants or {})

    def _prepare(self, index: int, task: Task, optimised: tuple[Graph, tuple[int, ...]], *, solo: bool) -> _Prepared:
        graph, origin = optimised
        sites = self.model.sites
        bound = concrete(graph, task.bindings, self.model.tokenizer, sites)
        alone = solo or not self.model.layout.packed or self._must_be_alone(bound)
        program = compile_task(bound, origin, sites, together=not alone)
        return _Prepared(index, task.seed, program, alone)

    def _must_be_alone(self, graph: Graph) -> bool:
        return any(
            path in self.model.layout.alone or not _one_token_axis(value)
            for path, value in touched(graph, self.model.sites)
        )

    def _batches(self, prepared: Sequence[_Prepared]) -> Iterator[list[_Prepared]]:
        batch: list[_Prepared] = []
        shared: set[tuple[int, ...]] = set()
        tokens = 0
        for task in prepared:
            if task.alone:
                yield [task]
                continue
            unchanged = {task.program.tokens(visit.run) for visit in task.program.visits if not visit.changed}
            changed = sum(len(task.program.tokens(visit.run)) for visit in task.program.visits if visit.changed)
            more = changed + sum(len(run) for run in unchanged - shared)
            if batch and tokens + more > self.max_batch_tokens:
                yield batch
                batch, shared, tokens = [], set(), 0
                more = changed + sum(len(run) for run in unchanged)
            batch.append(task)
            shared |= unchanged
            tokens += more
        if batch:
            yield batch

    def _run_batch(
        self, batch: Sequence[_Prepared], nan: NanPolicy, constants: Mapping[str, torch.Tensor]
    ) -> Iterator[Outcome]:
        """A batch whose pass breaks as a whole is halved until the task that breaks it is found."""
        try:
            runs = self._execute(batch, nan, constants)
        except Exception as error:  # noqa: BLE001  whatever breaks a pass must not take the neighbours down
            failure = str(error).splitlines()[0] if str(error) else type(error).__name__
        else:
            self.counters.tasks += len(runs)
            for run in runs:
                yield Outcome(run.index, {} if run.error else run.saves, run.error, tuple(run.prints))
            return
        self._free_memory()
        if len(batch) == 1:
            yield Outcome(batch[0].index, {}, TaskError(f"the model's pass failed: {failure}"))
            return
        half = len(batch) // 2
        yield from self._run_batch(batch[:half], nan, constants)
        yield from self._run_batch(batch[half:], nan, constants)

    def _execute(
        self, batch: Sequence[_Prepared], nan: NanPolicy, constants: Mapping[str, torch.Tensor]
    ) -> list[TaskRun]:
        around = Surroundings(
            weight=self.model.weight,
            call=lambda path, args: apply_module(self.model.submodule(path), args),
            constants=constants,
            device=self.model.device,
            spread=self.model.spread,
            refuse_nan=nan == "error",
        )
        runs = [TaskRun(task.index, task.seed, task.program, around) for task in batch]
        with torch.no_grad():
            for run in runs:
                run.advance(*BEFORE)
            for stage in range(max(task.program.stages for task in batch)):
                plan = plan_pass(runs, stage)
                if plan is not None:
                    self.counters.passes += 1
                    self.counters.tokens += run_pass(self.model, runs, plan)
        return runs

    def _free_memory(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _one_token_axis(value: SiteValue) -> bool:
    if isinstance(value, tuple):
        return all(_one_token_axis(item) for item in value)
    return not isinstance(value, SiteTensor) or len(value.token_axes) == 1
