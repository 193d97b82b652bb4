"""What the passes over some tasks will compute, and what each of the engine's means saves: planned, not run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from ndif_batch.engine.batches import Batch, Prepared, Waiting
from ndif_batch.engine.blocks import Moments, births_of, find_blocks
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.engine import in_turn
from ndif_batch.engine.outline import AssumedModel
from ndif_batch.engine.plan import PassPlan, plan_pass
from ndif_batch.engine.prepare import Preparation
from ndif_batch.engine.program import Program, Visit, at_sites, compile_task, rewritten
from ndif_batch.engine.routes import Route, routes
from ndif_batch.engine.running import Running
from ndif_batch.engine.schedule import TARGET
from ndif_batch.engine.targets import BACKWARD
from ndif_batch.engine.tasks import Surroundings
from ndif_batch.errors import NdifBatchError
from ndif_batch.sweep.task import Task

STEPS: Final = (
    *("one run at a time", "dead nodes", "common nodes"),
    *("sharing", "depth", "leave", "branches", "positions", "vectorise"),
)
"""The engine's means, one added to the other; the last is what is done."""

ALONE, DEAD, COMMON, SHARING, DEPTH, LEAVE, BRANCHES, POSITIONS, VECTORISE = STEPS
ENDLESS = sys.maxsize
Routes: TypeAlias = Mapping[int, Sequence[Route]]


@dataclass(frozen=True, slots=True)
class Effort:
    """What passes compute.

    ``tokens`` go in, or begin on the way as branches; ``layers`` are the blocks that passes go into, each once a
    pass; ``token_blocks`` tokens times the blocks that each goes through; ``positions`` those for which the head is
    computed. A model without blocks counts as one. ``backwards`` are the ways back that passes with gradients go, and
    ``blocks_back`` the tokens times the blocks that these go through. ``bytes`` are of what blocks and head make on the
    way, added up; ``nodes`` how often one of a graph's nodes is carried out.
    """

    passes: float = 0
    tokens: float = 0
    layers: float = 0
    token_blocks: float = 0
    positions: float = 0
    bytes: float = 0
    nodes: float = 0
    backwards: float = 0
    blocks_back: float = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Effort)))

    def __mul__(self, factor: float) -> Effort:
        return Effort(*(getattr(self, f.name) * factor for f in fields(Effort)))

    def rounded(self) -> Effort:
        """In whole numbers."""
        return Effort(*(round(getattr(self, f.name)) for f in fields(Effort)))


@dataclass(frozen=True, slots=True)
class Forecast:
    """``efforts`` are by step of :data:`STEPS`; ``bytes`` what the largest batch is estimated to take beside the
    weights."""

    tasks: int = 0
    batches: float = 0
    bytes: int = 0
    efforts: Mapping[str, Effort] = field(default_factory=lambda: dict.fromkeys(STEPS, Effort()))

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            self.tasks + other.tasks,
            self.batches + other.batches,
            max(self.bytes, other.bytes),
            {step: self.efforts[step] + other.efforts[step] for step in STEPS},
        )


@dataclass(frozen=True, slots=True)
class PlannedPass:
    """A pass as it will be, and as it would be if nothing but whole equal runs were shared.

    ``backwards`` times gradients go back through it, as far as the site at ``first``.
    """

    plan: PassPlan
    shared: PassPlan
    backwards: int = 0
    first: int = ENDLESS


class Forecaster:
    """Plans tasks on a model that need not be loaded, as an engine would run them in one call."""

    def __init__(self, model: AssumedModel, batch_tokens: int) -> None:
        self._model = model
        self._batch_tokens = batch_tokens
        self._moments = model.layout.moments
        paths = find_blocks(model.sites)
        births = births_of(paths, model.sites) if paths else (-1, ENDLESS)
        self._begins, self._ends = np.array(births[:-1], np.int64), np.array(births[1:], np.int64)
        self._preparation = Preparation(model, solo=False, constants={})
        self._plain: dict[int, Sequence[Route]] = {}
        self._written: dict[int, tuple[Program, ...]] = {}

    @property
    def stages(self) -> int:
        """The most passes that one of the tasks needs, one after the other."""
        return max((program.stages for *_, program in self._written.values()), default=0)

    @property
    def blocks(self) -> int:
        """How many blocks the model has."""
        return len(self._begins)

    def prepared(self, index: int, task: Task) -> Prepared:
        """Task ``index`` of those given, ready to be planned; an ``NdifBatchError`` says what is wrong with it."""
        prepared = self._preparation.task(index, task)
        if id(prepared.program) not in self._written:
            self._written[id(prepared.program)] = self._rewritten(task, prepared)
        return prepared

    def _rewritten(self, task: Task, prepared: Prepared) -> tuple[Program, ...]:
        """The program of a task before and between the rewritings of its graph, and as it is.

        What only works without its dead nodes counts as if it had none.
        """
        found = [prepared.program]
        for written, origin in reversed(list(rewritten(task.graph))[:-1]):
            try:
                bound = at_sites(written, task.bindings)
                program = compile_task(bound, origin, self._model.sites, together=self._model.layout.packed)
            except NdifBatchError:
                program = found[0]
            found.insert(0, program)
        return tuple(found)

    def forecast(self, tasks: Sequence[Task], *, goes_on: bool = False) -> Forecast:
        """What one call with these tasks would compute, whatever the memory.

        If the call ``goes_on`` after them, their last batch counts as much as it is full.
        """
        total = Forecast()
        prepared = in_turn([self.prepared(n, task) for n, task in enumerate(tasks)], packed=self._model.layout.packed)
        waiting = Waiting(prepared, self._batch_tokens, ENDLESS, self._model.footprint)
        while (batch := waiting.batch()) is not None:
            last = waiting.first is None
            part = min(1.0, batch.tokens / self._batch_tokens) if goes_on and last else 1.0
            total += self._of_batch(batch, waiting, part)
        return total

    def _of_batch(self, batch: Batch, waiting: Waiting, part: float) -> Forecast:
        """What a batch and those of the ``waiting`` that join it compute, of which only a ``part`` is there."""
        running = Running(NOTHING, packed=self._model.layout.packed)
        running.begin(batch.tasks)
        tasks: dict[int, Prepared] = {}
        efforts = {step: Effort() for step in (SHARING, DEPTH, LEAVE, BRANCHES, POSITIONS)}
        needed = carried_out = 0
        while running.tasks:
            tasks |= {task.member.index: task for task in running.tasks}
            needed = max(needed, batch.bytes(self._model.footprint))
            for planned in self._round(running):
                for step, effort in self._steps(planned):
                    efforts[step] += _parted(effort, part)
            left = running.leave()
            carried_out += sum(len(cohort.program.entries) for cohort in left)
            running.let_go(left)
            batch = running.join(waiting) or batch
        alone = {step: self._alone(list(tasks.values()), number) for number, step in enumerate((ALONE, DEAD, COMMON))}
        efforts = {step: replace(effort, nodes=alone[COMMON].nodes) for step, effort in efforts.items()}
        efforts[VECTORISE] = replace(efforts[POSITIONS], nodes=part * carried_out)
        return Forecast(len(tasks), part, needed, alone | efforts)

    def _round(self, running: Running) -> Iterator[PlannedPass]:
        """The next passes of all that are running."""
        for cohort in running.cohorts:
            if id(cohort.program) not in self._plain:
                self._plain[id(cohort.program)] = routes(cohort.program, self._model.sites, Moments())
        for beside in running.passes():
            shared = plan_pass(beside, self._plain, Moments())
            plan = plan_pass(beside, self._preparation.routes, self._moments, running.cache)
            if plan is not None and shared is not None:
                yield PlannedPass(plan, shared, *_way_back(beside))
                for cohort in beside:
                    cohort.assume(plan.pasts)

    def _alone(self, tasks: Sequence[Prepared], rewriting: int) -> Effort:
        """Every run by itself and whole, as often as the program needs it after so many rewritings of its graph."""
        alike = Counter((id(task.program), tuple(map(len, task.member.prompts))) for task in tasks)
        total = Effort()
        for (program_id, lengths), count in alike.items():
            program = self._written[program_id][rewriting]
            passes, tokens = len(program.visits), sum(_length(lengths, visit) for visit in program.visits)
            head = 0 if self._model.sites.head is None else tokens
            effort = Effort(passes, tokens, passes * self.blocks, tokens * self.blocks, head, 0, len(program.entries))
            total += self._with_bytes(replace(effort, **self._back(program, lengths))) * count
        return total

    def _back(self, program: Program, lengths: Sequence[int]) -> dict[str, float]:
        """Every scalar's gradients by themselves, from its run's depth to its first site."""
        blocks_back = 0
        for visit in program.visits:
            backwards, first = _back_through(program, visit.stage)
            through = (self._begins < visit.depth) & (self._ends > first)
            blocks_back += backwards * _length(lengths, visit) * int(through.sum())
        return {"backwards": len(list(program.of(BACKWARD))), "blocks_back": blocks_back}

    def _steps(self, planned: PlannedPass) -> Iterator[tuple[str, Effort]]:
        plan, shared = planned.plan, planned.shared
        yield SHARING, self._effort(planned, shared, np.full_like(shared.exit, ENDLESS))
        yield DEPTH, self._effort(planned, shared, np.full_like(shared.exit, shared.depth))
        yield LEAVE, self._effort(planned, shared, shared.exit)
        branches = self._effort(planned, plan, plan.exit)
        yield BRANCHES, branches
        kept = plan.kept.size if branches.positions and self._moments.narrow is not None else branches.positions
        yield POSITIONS, self._with_bytes(replace(branches, positions=kept))

    def _with_bytes(self, effort: Effort) -> Effort:
        footprint = self._model.footprint
        return replace(effort, bytes=footprint.token * effort.token_blocks + footprint.position * effort.positions)

    def _effort(self, planned: PlannedPass, plan: PassPlan, exits: np.ndarray[Any, np.dtype[np.int64]]) -> Effort:
        """A pass whose lanes leave at ``exits``; it ends when the last has left."""
        own = plan.lanes.length - plan.lanes.start
        deepest = int(exits.max())
        if not self._model.layout.blocks:
            exits = np.full_like(exits, deepest)
        numbers = np.arange(self.blocks)
        last = np.where(numbers == 0, deepest, exits[:, None])
        inside = (plan.birth[:, None] <= numbers) & (last > self._begins)
        head, narrow = self._model.sites.head, self._moments.narrow
        reaching = exits >= narrow if head is not None and narrow is not None else np.zeros_like(exits, bool)
        return self._with_bytes(
            Effort(
                passes=1,
                tokens=int(own.sum()),
                layers=int((deepest > self._begins).sum()),
                token_blocks=int(own @ inside.sum(1)),
                backwards=planned.backwards,
                blocks_back=planned.backwards * int(own @ (inside & (self._ends > planned.first)).sum(1)),
                positions=int(own[reaching].sum()),
            )
        )


def _parted(effort: Effort, part: float) -> Effort:
    """What a pass takes that is filled up by others: its own tokens, and a part of what is done once for all."""
    return replace(effort, passes=part * effort.passes, layers=part * effort.layers, backwards=part * effort.backwards)


def _way_back(cohorts: Sequence[Cohort]) -> tuple[int, int]:
    """How often gradients go back through the next pass of some cohorts, and to which order."""
    ways = [_back_through(cohort.program, cohort.stage) for cohort in cohorts]
    return max((backwards for backwards, _ in ways), default=0), min((first for _, first in ways), default=ENDLESS)


def _back_through(program: Program, stage: int) -> tuple[int, int]:
    """How often gradients go back through a pass of a program, and to which order."""
    differentiated = stage in program.differentiated
    backwards = sum(entry.stage >= stage for entry in program.of(BACKWARD)) if differentiated else 0
    targets = (entry.order for entry in program.of(TARGET) if entry.stage == stage)
    return backwards, min(targets, default=ENDLESS)


def _length(lengths: Sequence[int], visit: Visit) -> int:
    """Tokens of a visit's run: those of its prompt, or the one of a step."""
    return lengths[visit.run] if visit.run < len(lengths) else 1


def _nothing(*_: Any) -> Any:
    raise LookupError("there is no model: nothing is computed while passes are planned")


NOTHING: Final = Surroundings(weight=_nothing, call=_nothing, constant=_nothing, device=torch.device("meta"))
"""What a cohort finds around it that is planned and not run."""
