"""Why a job waits, in Slurm's words."""

from __future__ import annotations

from collections.abc import Sequence

from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import JobRecord, JobState, ShardRecord, ShardState, WorkerRecord, WorkerState

LIVE = (WorkerState.STARTING, WorkerState.RUNNING)

SHORT = {
    JobState.HELD: "PD",
    JobState.PENDING: "PD",
    JobState.RUNNING: "R",
    JobState.COMPLETED: "CD",
    JobState.FAILED: "F",
    JobState.CANCELLED: "CA",
}
"""Slurm's codes; a held job is pending with the reason ``Held``."""

MEANING = {
    "Held": "it is on hold: `ndif-batch release` lets it go",
    "Resources": "no worker holds its model: `ndif-batch worker run --model` starts one",
    "ModelLoading": "a worker is loading its model",
    "Backoff": "its shards failed and are tried again in a moment",
    "Priority": "workers are busy with jobs that come first",
}


def alive(worker: WorkerRecord, model: str) -> bool:
    """Whether a worker has ``model`` and takes work, or soon will."""
    return worker.model == model and worker.state in LIVE


def waiting_reason(job: JobRecord, workers: Sequence[WorkerRecord], shards: Sequence[ShardRecord] = ()) -> str:
    """A word of ``MEANING`` for a job that waits, the queue's own reason for one that has ended, else nothing."""
    if job.state is JobState.HELD:
        return "Held"
    if job.state is not JobState.PENDING:
        return job.reason or ""
    mine = [worker for worker in workers if alive(worker, job.model)]
    if not mine:
        return "Resources"
    if all(worker.state is WorkerState.STARTING for worker in mine):
        return "ModelLoading"
    waiting = [shard for shard in shards if shard.state is ShardState.PENDING]
    return "Backoff" if waiting and all(shard.ready_at is not None for shard in waiting) else "Priority"


def pilots_say(pilots: Sequence[PilotRecord], model: str) -> str:
    """Why no pilot of ``model`` works yet, as its newest one has it: what it waits for, or what it failed with."""
    mine = [pilot for pilot in pilots if pilot.model == model]
    if any(pilot.state is PilotState.RUNNING for pilot in mine):
        return ""
    newest = max(mine, key=lambda pilot: pilot.id, default=None)
    if newest is None or newest.state is PilotState.ENDED:
        return ""
    told = f": {newest.reason}" if newest.reason else ""
    return f"pilot {newest.name} is {newest.state.value}{told}"
