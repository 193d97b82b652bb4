"""A leased shard at work: its tasks, and their outcomes until all are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive import Accumulator, ArchiveSpec, TaskStatus, all_stored
from ndif_batch.errors import TaskError
from ndif_batch.graph.nodes import Graph
from ndif_batch.queue.records import JobRecord, Lease, TaskFailure
from ndif_batch.sweep.sample import sample
from ndif_batch.sweep.space import Excluded, Space
from ndif_batch.sweep.task import Task, make_task, make_tasks
from ndif_batch.worker.ports import LayoutChoice, NanPolicy, Outcome

if TYPE_CHECKING:
    from ndif_batch.archive.judge import Values
    from ndif_batch.archive.statistics import State
    from ndif_batch.worker.reuse import Source


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job as its worker needs it, read once. ``sources`` are the earlier jobs that were looked at, by id.

    ``excluded`` says of each task whether it does not run; None if all do.
    """

    record: JobRecord
    graph: Graph
    space: Space
    spec: ArchiveSpec
    constants: Mapping[str, Any]
    model_dtype: str
    sources: dict[int, Source | None] = field(default_factory=dict)
    excluded: Excluded | None = None

    @property
    def layout(self) -> LayoutChoice:
        """``solo`` for a job that must not share a pass."""
        return "solo" if self.record.options.get("layout") == "solo" else "auto"

    @property
    def nan(self) -> NanPolicy:
        """``error`` for a job whose tasks fail if they compute a NaN."""
        return "error" if self.record.options.get("nan") == "error" else "allow"

    @property
    def verify_fraction(self) -> float:
        """How many of its tasks are run again alone, from 0 to 1."""
        return float(self.record.options.get("verify_fraction", 0.0))

    @property
    def shares(self) -> bool:
        """Whether its tasks may stand beside those of other jobs in one call of the engine."""
        return (self.layout, self.nan) == ("auto", "allow")


class ShardWork:
    """One leased shard. ``values`` (until they are on disk) and ``status`` have a place for each of its tasks.

    Values that are reduced are not kept, but for those of tasks that may be ``checked``, which are run again.
    """

    def __init__(self, lease: Lease, job: OpenJob) -> None:
        self.lease = lease
        self.shard = lease.shard
        self.job = job
        self.status: list[TaskStatus] = [TaskStatus.WAITING] * lease.shard.tasks
        self.values: dict[str, list[np.ndarray[Any, Any] | None]] = {
            array.name: [None] * lease.shard.tasks for array in job.spec.arrays
        }
        self._reducing = {
            one: Accumulator(job.spec, one, lease.shard.first_task, lease.shard.tasks) for one in job.spec.reduced
        }
        tasks = range(lease.shard.first_task, lease.shard.first_task + lease.shard.tasks)
        self._to_check: dict[int, Mapping[str, np.ndarray[Any, Any]]] = (
            {task - tasks.start: {} for task in self._sampled(tasks)} if self._reducing else {}
        )
        self.failures: list[TaskFailure] = []
        self.missing = lease.shard.tasks
        if job.excluded is not None:
            first = lease.shard.first_task
            for place in np.flatnonzero(job.excluded[first : first + lease.shard.tasks]).tolist():
                self._keep(place, TaskStatus.EXCLUDED, {})

    @property
    def waiting(self) -> list[int]:
        """Places of the tasks that have no outcome yet."""
        return [place for place, status in enumerate(self.status) if status == TaskStatus.WAITING]

    def task(self, place: int) -> Task:
        """The task at a place of the shard."""
        job = self.job
        return make_task(job.graph, job.space, job.record.seed, self.shard.first_task + place)

    def tasks(self, places: Sequence[int]) -> Iterator[Task]:
        """The tasks at some places of the shard."""
        job, first = self.job, self.shard.first_task
        return make_tasks(job.graph, job.space, job.record.seed, [first + place for place in places])

    @property
    def reused(self) -> int:
        """How many of its tasks an earlier job had saved."""
        return self.status.count(TaskStatus.REUSED)

    def reuse(self, place: int, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep what an equal task of an earlier job saved, unless it does not fit."""
        try:
            stored = all_stored(values, self.job.spec.saves)
        except (TaskError, KeyError):
            return
        self._keep(place, TaskStatus.REUSED, stored)

    @property
    def ran(self) -> list[int]:
        """Places of the tasks that were run, saved or failed."""
        return [p for p, status in enumerate(self.status) if status in (TaskStatus.SAVED, TaskStatus.FAILED)]

    def take(self, place: int, outcome: Outcome) -> None:
        """Keep a task's saved values, or why it failed."""
        stored = self.stored(outcome)
        if isinstance(stored, TaskError):
            task = self.shard.first_task + place
            self.failures.append(TaskFailure(task, stored.code, stored.message, stored.node))
            self._keep(place, TaskStatus.FAILED, {})
        else:
            self._keep(place, TaskStatus.SAVED, stored)

    def stored(self, outcome: Outcome) -> Values | TaskError:
        """An outcome's values as the archive holds them; its error, or why they do not fit."""
        if outcome.error is not None:
            return outcome.error
        try:
            return all_stored(outcome.saves, self.job.spec.saves)
        except TaskError as error:
            return error

    @property
    def nbytes(self) -> int:
        """Bytes of the values that it has so far."""
        values = sum(value.nbytes for column in self.values.values() for value in column if value is not None)
        return values + sum(one.nbytes for one in self._reducing.values())

    def states(self) -> dict[str, State]:
        """What its tasks give for each statistic of the job."""
        return {reduced.name: one.state() for reduced, one in self._reducing.items()}

    def forget(self) -> None:
        """Let go of the values: they are on disk, and the round may still have long to run."""
        self.values, self._reducing, self._to_check = {}, {}, {}

    def kept(self, place: int) -> Values | TaskError:
        """What is kept of the task at a place that has its outcome."""
        task = self.shard.first_task + place
        for failure in self.failures:
            if failure.task == task:
                return TaskError(failure.message, node=failure.node)
        kept = {name: value for name, column in self.values.items() if (value := column[place]) is not None}
        return {**kept, **self._to_check.get(place, {})}

    def _keep(self, place: int, status: TaskStatus, stored: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.missing -= 1
        self.status[place] = status
        for name, column in self.values.items():
            column[place] = stored.get(name)
        if stored:
            for reduced, one in self._reducing.items():
                one.add(place, stored[reduced.source.name])
        if place in self._to_check:
            self._to_check[place] = {
                reduced.source.name: stored[reduced.source.name] for reduced in self._reducing if stored
            }

    def _sampled(self, among: Iterable[int]) -> list[int]:
        """The tasks that are run again alone, if there is time."""
        job = self.job
        return sample(job.record.seed, job.record.tasks, job.verify_fraction, among, job.excluded)

    @property
    def to_check(self) -> list[int]:
        """Those of its tasks that ran and are to be run again alone, the first first."""
        return self._sampled(self.shard.first_task + place for place in self.ran)
