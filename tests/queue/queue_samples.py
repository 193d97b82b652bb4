"""Models, jobs and short ways to say what a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.queue.records import JobSpec, JobState, Lease, ModelRecord, ShardState
from ndif_batch.queue.store import Queue
from tests.queue.tallies_checked import check_tallies

MODEL = ModelRecord("smollm2", "hf:smollm2", "/models/smollm2", "abc", "float32", "d1gest", {"modules": []})
SECONDS = 60.0
ALL = 10**9


def job_spec(shards: int = 4, each: int = 10, **changes: Any) -> JobSpec:
    fields: dict[str, Any] = {
        "name": "patching",
        "user": "ada",
        "model": MODEL.name,
        "graph": {"version": 1, "nodes": [], "floats": [1e-7, -0.0]},
        "graph_digest": "g" * 64,
        "space": {"axes": [{"name": "layer", "columns": {"layer": {"range": [0, shards * each, 1]}}}], "constants": {}},
        "seed": 7,
        "tasks": shards * each,
        "tile": (each,),
        "arrays": [{"name": "diff", "dtype": "float32"}],
        "options": {"nan": "allow"},
        "tokens_per_task": 5,
        "archive": "/archive/1",
        "shards": [(index * each, each) for index in range(shards)],
    }
    return JobSpec(**fields | changes)


def new_worker(queue: WorkerQueue) -> int:
    return queue.register_worker(MODEL.name, "node1", 4711)


def take(queue: WorkerQueue, worker: int, shards: int = 1) -> list[Lease]:
    return queue.lease(worker, MODEL.name, ALL, SECONDS, max_shards=shards)


def indices(leases: Sequence[Lease]) -> list[int]:
    return [lease.shard.index for lease in leases]


def kinds(queue: Queue, job_id: int) -> list[str]:
    return [str(event.kind) for event in queue.events(job_id, limit=1000)]


def check_sums(queue: Queue) -> None:
    """Each job says what its shards say, and its state follows from theirs; so do the rows of users."""
    check_tallies(queue)
    for job in queue.jobs(limit=10_000):
        shards = queue.shards(job.id)
        assert sum(shard.tasks for shard in shards) == job.tasks
        assert sum(shard.tasks_done for shard in shards) == job.tasks_done
        assert sum(shard.tasks_failed for shard in shards) == job.tasks_failed
        still_open = any(shard.state in (ShardState.PENDING, ShardState.LEASED) for shard in shards)
        assert still_open is not job.state.final
        assert (job.state is JobState.CANCELLED) == any(shard.state is ShardState.CANCELLED for shard in shards)
        if job.state in (JobState.COMPLETED, JobState.FAILED):
            assert (job.tasks_failed > 0) == (job.state is JobState.FAILED)
