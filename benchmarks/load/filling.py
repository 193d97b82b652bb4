"""Fills a queue: a model, users, and jobs whose shards all wait."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from ndif_batch.queue import Queue
from ndif_batch.queue.records import JobSpec, ModelRecord
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.tiles import tile_tasks

MODEL = ModelRecord("model", "hf:model", "/models/model", "0", "bfloat16", "digest", {"modules": []})
TASKS = 500
"""The tasks of a shard."""

TOKENS = 20
"""The tokens of a task."""

GRAPH = {"version": 1, "nodes": [{"op": "read", "site": f"model.layers.{layer}.output"} for layer in range(32)]}


@dataclass(frozen=True, slots=True)
class Filled:
    """How long it took to submit ``shards`` shards, in jobs of equal size of as many users."""

    jobs: int
    shards: int
    seconds: float


def fill(url: str, users: int, shards: int) -> Filled:
    """One job a user, together ``shards`` shards."""
    with Queue.open(url) as queue:
        queue.add_model(MODEL)
        each = shards // users
        specs = [job(f"user{number:05}", each * TASKS) for number in range(users)]
        began = perf_counter()
        for spec in specs:
            queue.submit(spec)
        return Filled(users, users * each, perf_counter() - began)


def submit_seconds(url: str, tasks: int) -> float:
    """How long it takes to cut a job of ``tasks`` tasks and to submit it."""
    with Queue.open(url) as queue:
        queue.jobs(limit=1)
        began = perf_counter()
        queue.submit(job("big", tasks))
        return perf_counter() - began


def job(user: str, tasks: int) -> JobSpec:
    """A job over one axis of ``tasks`` points."""
    space = Space((Axis("x", {"x": range(tasks)}),))
    return JobSpec(
        name="load",
        user=user,
        model=MODEL.name,
        graph=GRAPH,
        graph_digest="load",
        space=space.to_json(),
        seed=0,
        tasks=tasks,
        tile=(TASKS,),
        shards=[(block.start, len(block)) for block in tile_tasks(space.shape, (TASKS,))],
        arrays=[],
        options={},
        tokens_per_task=TOKENS,
        archive="/archive",
    )
