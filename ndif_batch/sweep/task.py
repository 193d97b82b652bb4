"""One task: a graph, what it binds to the graph's parameters, and its seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.sweep.space import Space

SEED_AXIS = "seed"
"""The axis that ``seeds: N`` adds to a space, last and so fastest. Its value seeds the task.

It is no parameter of the graph, unless the graph has one of that name.
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine runs. ``id`` is the task's place in its job; ``seed`` decides every random number in it."""

    graph: Graph
    bindings: Mapping[str, Value] = field(default_factory=dict)
    seed: int = 0
    id: int = 0


def make_task(graph: Graph, space: Space, job_seed: int, task: int) -> Task:
    """Task number ``task`` of a job; ``SweepError`` if there is none."""
    space.point(task)
    return next(make_tasks(graph, space, job_seed, (task,)))


def make_tasks(graph: Graph, space: Space, job_seed: int, tasks: Collection[int]) -> Iterator[Task]:
    """Some tasks of a job. Those at one place of the seed axis, if there is one, share their seed."""
    seeded = SEED_AXIS in space.params and SEED_AXIS not in graph.params
    for task, bindings in zip(tasks, space.all_bindings(tasks), strict=True):
        drawn = bindings.pop(SEED_AXIS) if seeded else task
        yield Task(graph, bindings, task_seed(job_seed, drawn), task)


def task_seed(job_seed: int, drawn: Value) -> int:
    """A seed from 0 to 2⁶³ - 1 that is the same on every machine (BLAKE2b of both values)."""
    digest = blake2b(f"{job_seed}/{drawn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
