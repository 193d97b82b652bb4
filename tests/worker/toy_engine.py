"""A small deterministic engine: what a task saves follows from its bindings and its seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from ndif_batch.errors import TaskError
from ndif_batch.sweep.task import Task
from tests.toy import WIDTH


@dataclass(frozen=True, slots=True)
class ToyOutcome:
    index: int
    saves: Mapping[str, Any]
    error: TaskError | None = None
    prints: tuple[tuple[str, str], ...] = ()


@dataclass
class ToyCounters:
    passes: int = 0
    tasks: int = 0
    tokens: int = 0
    busy_seconds: float = 0.0


@dataclass
class ToyEngine:
    """``before(task)`` may raise a ``TaskError`` for the task, or anything else for the whole call.

    ``after(task, saves)`` may change what the task saved.
    """

    before: Callable[[Task], None] = lambda task: None
    after: Callable[[Task, dict[str, Any]], None] = lambda task, saves: None
    counters: ToyCounters = field(default_factory=ToyCounters)
    calls: list[list[Task]] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)

    def run(
        self, tasks: Iterable[Task], *, nan: str, layout: str, constants: Mapping[str, Any]
    ) -> Iterator[ToyOutcome]:
        tasks = list(tasks)
        self.calls.append(tasks)
        self.options.append((nan, layout))
        self.counters.passes += 1
        self.counters.tasks += len(tasks)
        self.counters.tokens += sum(len(str(task.bindings["prompt"]).split()) for task in tasks)
        for index in reversed(range(len(tasks))):
            yield self._outcome(index, tasks[index])

    def _outcome(self, index: int, task: Task) -> ToyOutcome:
        began = perf_counter()
        try:
            self.before(task)
        except TaskError as error:
            return ToyOutcome(index, {}, error)
        finally:
            self.counters.busy_seconds += perf_counter() - began
        saves = values(task)
        self.after(task, saves)
        return ToyOutcome(index, saves)


def values(task: Task) -> dict[str, np.ndarray[Any, Any]]:
    """What the graphs ``reading`` and ``whole`` of :mod:`tests.toy` save in this toy world."""
    layer, prompt = task.bindings["layer"], str(task.bindings["prompt"])
    assert isinstance(layer, int)
    if "position" not in task.bindings:
        rows = np.arange(len(prompt.split()) * WIDTH, dtype=np.float32).reshape(-1, WIDTH)
        return {"residual": rows + layer}
    position = task.bindings["position"]
    assert isinstance(position, int)
    residual = np.arange(WIDTH, dtype=np.float32) + 100 * layer + 10 * position
    return {"residual": residual, "logit": np.float32(task.seed % 1000) + np.asarray(layer, dtype=np.float32)}
