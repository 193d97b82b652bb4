"""Why a job waits, in Slurm's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import JobRecord, JobState, ShardRecord, ShardState, WorkerRecord, WorkerState

if TYPE_CHECKING:
    from ndif_batch.queue.api import ClientQueue

LIVE = (WorkerState.STARTING, WorkerState.RUNNING)

SHORT = {
    JobState.HELD: "PD",
    JobState.PENDING: "PD",
    JobState.RUNNING: "R",
    JobState.COMPLETED: "CD",
    JobState.FAILED: "F",
    JobState.CANCELLED: "CA",
}
"""Slurm's codes; a held job is pending with the reason ``Held``, or ``Dependency`` if it comes after others."""

MEANING = {
    "Dependency": "it comes after job {after} and begins when all of that is completed; if it fails, it is cancelled",
    "Held": "it is on hold: `ndif-batch release {job}` lets it go",
    "Paused": "{what} is paused: `ndif-batch cluster resume{option}` ends the pause",
    "Quota": "{user} runs {running} of {limit} shards at once: it goes on when one of them ends; an administrator may"
    " raise the limit with `ndif-batch user set {user} --running-shards`",
    "Resources": "no worker holds its model: a scheduler starts one, or `ndif-batch worker run --model {model}`",
    "ModelLoading": "a worker is loading its model",
    "Backoff": "its shards failed and are tried again in a moment",
    "Priority": "workers are busy with jobs that come first",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What jobs may wait for: workers, settings (the pauses among them), and users who run all that they may.

    ``full`` are those users, each with the shards that they run and their limit.
    """

    workers: Sequence[WorkerRecord]
    settings: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, queue: ClientQueue, workers: Sequence[WorkerRecord] | None = None) -> Standing:
        """As it is now; ``workers`` if they are known already."""
        running = queue.running_shards()
        limits = {user.name: user.quotas.running_shards for user in queue.users()}
        full = {
            user: (running.get(user, 0), limit)
            for user, limit in limits.items()
            if limit is not None and running.get(user, 0) >= limit
        }
        return cls(queue.workers() if workers is None else workers, queue.settings(), full)

    def serves(self, model: str) -> bool:
        """Whether a worker has a model and takes work, or soon will."""
        return any(alive(worker, model) for worker in self.workers)

    def is_paused(self, model: str) -> bool:
        """Whether nothing of a model is leased."""
        return bool(self.settings.get("pause") or self.settings.get(f"pause:{model}"))


def alive(worker: WorkerRecord, model: str) -> bool:
    """Whether a worker has ``model`` and takes work, or soon will."""
    return worker.model == model and worker.state in LIVE


def waiting_reason(job: JobRecord, standing: Standing, shards: Sequence[ShardRecord] = ()) -> str:
    """A word of ``MEANING`` for a job that waits, the queue's own reason for one that has ended, else nothing.

    With its ``shards`` a job that runs waits, too, while none of them is leased.
    """
    if job.state is JobState.HELD:
        return "Dependency" if job.awaiting else "Held"
    states = {shard.state for shard in shards}
    stuck = job.state is JobState.RUNNING and ShardState.PENDING in states and ShardState.LEASED not in states
    if job.state is not JobState.PENDING and not stuck:
        return job.reason or ""
    if standing.is_paused(job.model):
        return "Paused"
    if job.user in standing.full:
        return "Quota"
    mine = [worker for worker in standing.workers if alive(worker, job.model)]
    if not mine:
        return "Resources"
    if all(worker.state is WorkerState.STARTING for worker in mine):
        return "ModelLoading"
    waiting = [shard for shard in shards if shard.state is ShardState.PENDING]
    return "Backoff" if waiting and all(shard.ready_at is not None for shard in waiting) else "Priority"


def explained(reason: str, job: JobRecord, standing: Standing) -> str:
    """A reason with what it means for this job, and what to do."""
    if reason not in MEANING:
        return reason
    alone = not standing.settings.get("pause")
    running, limit = standing.full.get(job.user, (0, 0))
    meaning = MEANING[reason].format(
        job=job.id,
        after=" and ".join(map(str, job.after)),
        model=job.model,
        user=job.user,
        running=running,
        limit=limit,
        what=f"model {job.model}" if alone else "everything",
        option=f" --model {job.model}" if alone else "",
    )
    return f"{reason}: {meaning}"


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
