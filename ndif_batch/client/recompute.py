"""Runs some of a job's saved tasks again, each alone, and compares them with what its archive holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive import ArchiveSpec, Judge, Results, SavedTasks, TaskStatus, Verified, all_stored, merged
from ndif_batch.errors import ConflictError, IntegrityError, NdifBatchError, TaskError, UsageError
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.serialize import digest, graph_from_json
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import Task, make_task

if TYPE_CHECKING:
    from ndif_batch.archive.judge import Values
    from ndif_batch.engine.engine import NanPolicy, Outcome

AT_ONCE = 64
"""How many tasks are asked of the engine in one call; of each one at a time is in memory."""

Alone = Callable[[ModelInfo, Sequence[Task], Mapping[str, Any], "NanPolicy"], "Iterator[Outcome]"]


@dataclass(frozen=True, slots=True)
class Described:
    """A job as its archive describes it, with nothing from the queue."""

    graph: Graph
    space: Space
    seed: int
    nan: NanPolicy
    model: str
    model_digest: str
    spec: ArchiveSpec

    @classmethod
    def by(cls, results: Results) -> Described:
        """``IntegrityError`` if what the archive says of its job does not hold together."""
        try:
            known = results.attributes
            graph, space = graph_from_json(known["graph"]), Space.from_json(known["space"])
            axes = {axis.name: axis.columns for axis in space.axes}
            spec = ArchiveSpec.described(axes, results.grid.tile, [one.to_json() for one in results.arrays.values()])
            same = known["graph_digest"] == digest(graph) and space.shape == results.grid.shape
            nan: NanPolicy = "error" if known["job"]["options"].get("nan") == "error" else "allow"
            model, seed = known["model"], known["job"]["seed"]
            found = cls(graph, space, seed, nan, model["name"], model["digest"], spec)
        except (KeyError, TypeError, ValueError, AttributeError, NdifBatchError) as error:
            raise IntegrityError(f"what {results.path} says of its job is damaged: {error!r}") from None
        if not same:
            raise IntegrityError(f"the graph or the space of {results.path} is not the one that was run")
        return found

    def task(self, number: int) -> Task:
        """Task ``number``."""
        return make_task(self.graph, self.space, self.seed, number)


def choose(results: Results, count: int, seed: int) -> list[int]:
    """``count`` of the tasks that were saved or re-used, all if they are fewer; the same for the same ``seed``."""
    if count < 1:
        raise UsageError(f"{count} tasks cannot be recomputed")
    if results.reduced and not results.arrays:
        raise UsageError("of no task the archive keeps a value of its own to compare with: all are reduced")
    saved = np.flatnonzero(np.isin(results.status(), (TaskStatus.SAVED, TaskStatus.REUSED))).tolist()
    return sorted(Random(seed).sample(saved, min(count, len(saved))))


def recompute(
    job: Described, results: Results, tasks: Sequence[int], model: ModelInfo, constants: Mapping[str, Any], alone: Alone
) -> Verified:
    """Runs ``tasks`` again and compares; a task whose values cannot be read, or that now fails, deviates.

    ``ConflictError`` if the model of that name has other weights now.
    """
    if model.digest != job.model_digest:
        raise ConflictError(f"model {model.name!r} has other weights than those of {results.path}")
    stored, judge = SavedTasks(results.path, job.spec), Judge(job.spec.arrays, model.dtype)

    def checks() -> Iterator[Verified]:
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            for outcome in alone(model, [job.task(number) for number in some], constants, job.nan):
                number = some[outcome.index]
                there = stored.take(np.array([number])).get(number)
                missing = Verified(1, (), (number,))
                yield missing if there is None else judge.compare(number, there, _again(job, outcome))

    return merged(checks())


def _again(job: Described, outcome: Outcome) -> Values | None:
    """What a task saves now; None if it fails, or saves what the archive has no room for."""
    try:
        return all_stored(outcome.saves, job.spec.arrays)
    except (KeyError, TaskError):
        return None
