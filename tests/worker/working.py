"""Jobs of the toy model, and workers of one queue that are small enough to step through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ndif_batch.client import Client, JobHandle, Plan
from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import SEED_AXIS, make_task
from ndif_batch.sweep.tiles import tile_tasks
from ndif_batch.worker.ending import Until
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.loop import Worker
from ndif_batch.worker.ports import TaskEngine
from ndif_batch.worker.progress import Progress
from ndif_batch.worker.provenance import Runtime
from tests import toy
from tests.worker.toy_engine import values

IDLE = Until(idle=True)


def submit(client: Client, *, tile: tuple[int, ...] = (1, 3), repeats: int = 0, **options: Any) -> JobHandle:
    """A job over four layers and three positions, cut into shards; with ``repeats``, so often each by seed.

    All of it is run: what the toy engine saves follows from the seed of a task, too.
    """
    axes = [Axis("layer", {"layer": range(4)}), Axis("position", {"position": range(3)})]
    if repeats:
        axes.append(Axis(SEED_AXIS, {SEED_AXIS: range(repeats)}))
    space = Space(tuple(axes), {"prompt": "the cat sat", "answer": "Paris"})
    plan = cut(client.prepare(toy.reading(), space, toy.NAME), tile)
    return client.submit(plan, **{"reuse": False, **options})


def cut(plan: Plan, tile: tuple[int, ...]) -> Plan:
    return replace(plan, tile=tile, shards=tuple(tile_tasks(plan.space.shape, tile)))


@dataclass(frozen=True)
class Working:
    worker: Worker
    heart: Heartbeat
    id: int

    def run(self, until: Until = IDLE) -> Progress:
        return self.worker.run(until)


@contextmanager
def working(
    client: Client,
    engine: TaskEngine,
    *,
    max_tokens: int = 10**6,
    lease_seconds: float = 30.0,
    every_seconds: float = 60.0,
    queue: WorkerQueue | None = None,
    model: str = toy.NAME,
    **options: Any,
) -> Iterator[Working]:
    """A worker whose heart beats only when a test says so; it leaves the queue in good order."""
    queue = queue or client.queue
    worker_id = queue.register_worker(model, "here", 1)
    heart = Heartbeat(queue, worker_id, lease_seconds=lease_seconds, every_seconds=every_seconds)
    runtime = Runtime("here", "cpu", "packed")
    jobs = OpenJobs(queue.model(model), client.model_info(model).tokenizer, runtime, client.settings.blobs)
    try:
        worker = Worker(queue, engine, jobs, heart, model=model, max_tokens=max_tokens, **options)
        yield Working(worker, heart, worker_id)
    finally:
        queue.stop_worker(worker_id)


def assert_right(job: JobHandle) -> None:
    """Every value of an archive is the one that its task saves."""
    record = job.refresh().record
    results = job.results()
    space = Space.from_json(record.space)
    graph = toy.reading()
    for name in results:
        found = np.asarray(results[name])
        for task in range(record.tasks):
            expected = values(make_task(graph, space, record.seed, task))[name]
            assert np.array_equal(found[space.point(task)], expected), (name, task)
    assert (results.status() == 1).all()
    assert results.verify() == []
