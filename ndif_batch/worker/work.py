"""A leased shard at work: its tasks, and their outcomes until all are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive import ArchiveSpec, ArraySpec, TaskStatus
from ndif_batch.errors import TaskError
from ndif_batch.graph.nodes import Graph
from ndif_batch.queue.records import JobRecord, Lease, TaskFailure
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import Task, make_task
from ndif_batch.worker.ports import LayoutChoice, NanPolicy, Outcome

if TYPE_CHECKING:
    from ndif_batch.worker.reuse import Source


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job as its worker needs it, read once. ``sources`` are the earlier jobs that were looked at, by id."""

    record: JobRecord
    graph: Graph
    space: Space
    spec: ArchiveSpec
    constants: Mapping[str, Any]
    sources: dict[int, Source | None] = field(default_factory=dict)

    @property
    def layout(self) -> LayoutChoice:
        """``solo`` for a job that must not share a pass."""
        return "solo" if self.record.options.get("layout") == "solo" else "auto"

    @property
    def nan(self) -> NanPolicy:
        """``error`` for a job whose tasks fail if they compute a NaN."""
        return "error" if self.record.options.get("nan") == "error" else "allow"

    @property
    def shares(self) -> bool:
        """Whether its tasks may stand beside those of other jobs in one call of the engine."""
        return (self.layout, self.nan) == ("auto", "allow")


class ShardWork:
    """One leased shard. ``values`` and ``status`` have a place for each of its tasks, in order."""

    def __init__(self, lease: Lease, job: OpenJob) -> None:
        self.lease = lease
        self.shard = lease.shard
        self.job = job
        self.status: list[TaskStatus] = [TaskStatus.WAITING] * lease.shard.tasks
        self.values: dict[str, list[np.ndarray[Any, Any] | None]] = {
            array.name: [None] * lease.shard.tasks for array in job.spec.arrays
        }
        self.failures: list[TaskFailure] = []
        self.missing = lease.shard.tasks

    @property
    def waiting(self) -> list[int]:
        """Places of the tasks that have no outcome yet."""
        return [place for place, status in enumerate(self.status) if status == TaskStatus.WAITING]

    def task(self, place: int) -> Task:
        """The task at a place of the shard."""
        job = self.job
        return make_task(job.graph, job.space, job.record.seed, self.shard.first_task + place)

    @property
    def reused(self) -> int:
        """How many of its tasks an earlier job had saved."""
        return self.status.count(TaskStatus.REUSED)

    def reuse(self, place: int, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep what an equal task of an earlier job saved, unless it does not fit."""
        try:
            stored = {array.name: _stored(values[array.name], array) for array in self.job.spec.arrays}
        except (TaskError, KeyError):
            return
        self._keep(place, TaskStatus.REUSED, stored)

    def take(self, place: int, outcome: Outcome) -> None:
        """Keep a task's saved values, or why it failed."""
        try:
            if outcome.error is not None:
                raise outcome.error
            stored = {array.name: _stored(outcome.saves[array.name], array) for array in self.job.spec.arrays}
        except TaskError as error:
            task = self.shard.first_task + place
            self.failures.append(TaskFailure(task, error.code, error.message, error.node))
            self._keep(place, TaskStatus.FAILED, {})
            return
        self._keep(place, TaskStatus.SAVED, stored)

    def _keep(self, place: int, status: TaskStatus, stored: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.missing -= 1
        self.status[place] = status
        for name, value in stored.items():
            self.values[name][place] = value


def _stored(value: Any, array: ArraySpec) -> np.ndarray[Any, Any]:
    """A tensor as its array holds it; ``TaskError`` if it does not fit what was found before the job was queued."""
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    found = np.asarray(value)
    if found.dtype == np.bool_:
        found = found.view(np.uint8)
    lengths = list(enumerate(zip(found.shape, array.shape, strict=False)))
    fits = found.ndim == len(array.shape) and all(
        size == longest or (axis in array.ragged and size < longest) for axis, (size, longest) in lengths
    )
    if not fits or found.dtype != array.dtype:
        raise TaskError(
            f"{array.name!r} came out as {found.dtype}{list(found.shape)}; "
            f"the archive has room for {array.dtype}{list(array.shape)}"
        )
    return found
