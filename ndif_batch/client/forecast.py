"""What a job's passes will compute, planned for all of its tasks, or for a sample of them if they are many."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from ndif_batch.client.plan import Plan, Tasks
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue.protocol import LEASE_PASSES
from ndif_batch.sweep.task import make_task

if TYPE_CHECKING:
    from ndif_batch.engine.forecast import Effort

PLANNED_TASKS = 16_384
"""Of a job with more tasks as many are planned, in whole calls of the engine from all over its space."""
LONGEST_CALL = PLANNED_TASKS // 8


@dataclass(frozen=True, slots=True)
class PassForecast:
    """``efforts`` are by the engine's means, each with those before it; the last is what will be computed.

    ``planned_tasks`` were looked at, the rest is taken to be like them. ``layout`` says how runs are taken to go
    together, ``layers`` how many blocks the model has, ``nodes`` how many nodes the graph has before and after dead
    and common ones are gone, ``stages`` how many passes a task needs one after the other, ``bytes`` what the largest
    batch takes beside the weights.
    """

    planned_tasks: int
    batch_tokens: int
    layout: str
    layers: int
    nodes: tuple[int, int]
    stages: int
    batches: int
    bytes: int
    efforts: dict[str, Effort]


def forecast(plan: Plan, batch_tokens: int | None, tasks: Tasks | None = None) -> PassForecast:
    """Plans a job's passes as a worker would, without the model's weights.

    ``batch_tokens`` are the most tokens of a pass; ``None`` is what an engine on a CPU takes. ``tasks`` are the ids of
    those that run, in order: all that are not excluded unless given. An error of a task is as for a worker.
    """
    from ndif_batch.engine.engine import CPU_BATCH_TOKENS
    from ndif_batch.engine.forecast import Forecast, Forecaster
    from ndif_batch.engine.outline import assume
    from ndif_batch.engine.program import optimise

    tokens = batch_tokens or CPU_BATCH_TOKENS
    model = assume(plan.model)
    each = plan.model.sites.input_tokens
    forecaster = Forecaster(model, max(1, tokens // each))
    total = Forecast()
    run = plan.running if tasks is None else tasks
    for call, goes_on in _sample(_calls(plan, tokens, run), len(run)):
        made = [make_task(plan.graph, plan.space, 0, task) for task in run[call.start : call.stop].tolist()]
        total += forecaster.forecast(made, goes_on=goes_on)
    factor = len(run) / max(1, total.tasks)
    return PassForecast(
        planned_tasks=total.tasks,
        batch_tokens=tokens,
        layout=str(model.layout),
        layers=forecaster.blocks,
        nodes=(len(plan.graph.nodes), len(optimise(plan.graph)[0].nodes)),
        stages=forecaster.stages,
        batches=round(total.batches * factor),
        bytes=total.bytes,
        efforts={step: _in_tokens(effort * factor, each).rounded() for step, effort in total.efforts.items()},
    )


def _in_tokens(effort: Effort, each: int) -> Effort:
    """What passes over items compute, of which each costs as much as so many tokens."""
    return replace(
        effort,
        tokens=effort.tokens * each,
        token_blocks=effort.token_blocks * each,
        blocks_back=effort.blocks_back * each,
    )


def weights_bytes(model: ModelInfo) -> int:
    """How large the files with a model's weights are: about what they take in memory."""
    return sum(file.stat().st_size for file in model.weights.glob("*.safetensors"))


def _calls(plan: Plan, batch_tokens: int, run: Tasks) -> list[range]:
    """The places in ``run`` of each call's tasks: those of as many shards as a worker leases at once."""
    room = LEASE_PASSES * batch_tokens // plan.prompts.tokens_per_task
    shards = max(1, room // len(plan.shards[0]))
    firsts = [plan.shards[first].start for first in range(0, len(plan.shards), shards)]
    begins = [*np.searchsorted(run, firsts).tolist(), len(run)]
    return [range(first, last) for first, last in pairwise(begins) if first < last]


def _sample(calls: list[range], tasks: int) -> Iterator[tuple[range, bool]]:
    """Calls, and whether more tasks follow in the same one: all if they have few tasks; else some, one from each
    stretch of the space, and no more of each than there is time for."""
    if tasks <= PLANNED_TASKS:
        yield from ((call, False) for call in calls)
        return
    length = min(LONGEST_CALL, max(map(len, calls)))
    stretches = min(tasks // length, PLANNED_TASKS // length)
    random = Random(0)
    for stretch in range(stretches):
        task = random.randrange(tasks * stretch // stretches, tasks * (stretch + 1) // stretches)
        call = calls[bisect(calls, task, key=lambda call: call.start) - 1]
        start = call.start + random.randint(0, max(0, len(call) - length))
        yield range(start, min(start + length, call.stop)), len(call) > length
