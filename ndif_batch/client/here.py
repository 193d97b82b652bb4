"""Runs single tasks in this process, on models that are loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from ndif_batch.client.plan import Plan
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.task import Task, make_task

if TYPE_CHECKING:
    from ndif_batch.engine.engine import Engine, NanPolicy, Outcome

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Here:
    """The engines of this process, one for each model directory."""

    def __init__(self, max_batch_tokens: int | None) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._engines: dict[tuple[str, str], Engine] = {}

    def run(self, plan: Plan, seed: int, constants: Mapping[str, Any]) -> Mapping[str, Any]:
        """The saved tensors of the first task of ``plan``; raises its ``TaskError``. ``constants`` are torch's."""
        engine = self._engine(plan.model)
        task = make_task(plan.graph, plan.space, seed, 0)
        outcome = next(iter(engine.run([task], constants=constants)))
        for name, text in outcome.prints:
            log.info("task.log", name=name, value=text)
        if outcome.error is not None:
            raise outcome.error
        return outcome.saves

    def alone(
        self, model: ModelInfo, tasks: Sequence[Task], constants: Mapping[str, Any], nan: NanPolicy
    ) -> Iterator[Outcome]:
        """The outcome of each task in passes of its own, in any order."""
        return self._engine(model).run(tasks, nan=nan, layout="solo", constants=constants)

    def _engine(self, model: ModelInfo) -> Engine:
        from ndif_batch.engine.engine import Engine
        from ndif_batch.engine.model import load

        key = (str(model.directory), model.digest)
        if key not in self._engines:
            self._engines[key] = Engine(load(model), self._max_batch_tokens)
        return self._engines[key]
