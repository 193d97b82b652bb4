"""What a job's passes will compute, planned for all of its tasks, or for a sample of them if they are many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from random import Random
from typing import TYPE_CHECKING

from ndif_batch.client.plan import Plan
from ndif_batch.sweep.task import make_task

if TYPE_CHECKING:
    from ndif_batch.engine.forecast import Effort

PLANNED_TASKS = 8_192
"""Of a job with more tasks as many are planned, in whole calls of the engine from all over its space."""
LONGEST_CALL = PLANNED_TASKS // 4


@dataclass(frozen=True, slots=True)
class PassForecast:
    """``efforts`` are by the engine's means, each with those before it; the last is what will be computed.

    ``planned_tasks`` were looked at, the rest is taken to be like them. ``layout`` says how runs are taken to go
    together, ``layers`` how many blocks the model has, ``nodes`` how many nodes the graph has before and after dead
    and common ones are gone, ``bytes`` what the largest batch takes beside the weights.
    """

    planned_tasks: int
    batch_tokens: int
    layout: str
    layers: int
    nodes: tuple[int, int]
    batches: int
    bytes: int
    efforts: dict[str, Effort]


def forecast(plan: Plan, batch_tokens: int | None) -> PassForecast:
    """Plans a job's passes as a worker would, without the model's weights.

    ``batch_tokens`` are the most tokens of a pass; ``None`` is what an engine on a CPU takes. An error of a task is
    as for a worker.
    """
    from ndif_batch.engine.engine import CPU_BATCH_TOKENS
    from ndif_batch.engine.forecast import Forecast, Forecaster
    from ndif_batch.engine.outline import assume
    from ndif_batch.engine.program import optimise

    tokens = batch_tokens or CPU_BATCH_TOKENS
    model = assume(plan.model)
    forecaster = Forecaster(model, tokens)
    total = Forecast()
    for call in _sample(list(_calls(plan, tokens)), plan.tasks):
        total += forecaster.forecast([make_task(plan.graph, plan.space, 0, task) for task in call])
    factor = plan.tasks / total.tasks
    return PassForecast(
        planned_tasks=total.tasks,
        batch_tokens=tokens,
        layout=str(model.layout),
        layers=forecaster.blocks,
        nodes=(len(plan.graph.nodes), len(optimise(plan.graph)[0].nodes)),
        batches=round(total.batches * factor),
        bytes=total.bytes,
        efforts={step: (effort * factor).rounded() for step, effort in total.efforts.items()},
    )


def _calls(plan: Plan, batch_tokens: int) -> Iterator[range]:
    """The tasks of each call of the engine: those of as many shards as a worker leases at once."""
    LEASED_PASSES = 16

    room = LEASED_PASSES * batch_tokens // plan.prompts.tokens_per_task
    shards = max(1, room // len(plan.shards[0]))
    for first in range(0, len(plan.shards), shards):
        yield range(plan.shards[first].start, plan.shards[min(first + shards, len(plan.shards)) - 1].stop)


def _sample(calls: list[range], tasks: int) -> Iterator[range]:
    """All calls if they have few tasks; else some, one from each stretch of the space."""
    if tasks <= PLANNED_TASKS:
        yield from calls
        return
    length = min(LONGEST_CALL, max(map(len, calls)))
    stretches = min(len(calls), ceil(PLANNED_TASKS / length))
    random = Random(0)
    for stretch in range(stretches):
        begin, end = (len(calls) * at // stretches for at in (stretch, stretch + 1))
        call = calls[random.randrange(begin, end)]
        start = call.start + random.randint(0, max(0, len(call) - length))
        yield range(start, min(start + length, call.stop))
