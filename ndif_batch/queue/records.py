"""What the queue holds, as frozen data: jobs, shards, leases, workers, events. No SQL here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from ndif_batch.archive.verified import Verified

Json: TypeAlias = dict[str, Any]


class JobState(StrEnum):
    """Where a job is; the last three are final."""

    HELD = "HELD"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing of the job will run any more."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class ShardState(StrEnum):
    """Where a shard is."""

    PENDING = "PENDING"
    LEASED = "LEASED"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class WorkerState(StrEnum):
    """Where a worker is. ``LOST`` was silent for longer than its lease; it is ``RUNNING`` again when it speaks."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    LOST = "LOST"


class EventKind(StrEnum):
    """What happened; most kinds are a transition of :mod:`ndif_batch.queue.states`."""

    MODEL_ADDED = "model.added"
    MODEL_REMOVED = "model.removed"
    JOB_SUBMITTED = "job.submitted"
    JOB_HELD = "job.held"
    JOB_RELEASED = "job.released"
    JOB_STARTED = "job.started"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_RETRIED = "job.retried"
    JOB_PRIORITIZED = "job.prioritized"
    RESULTS_REMOVED = "results.removed"
    SHARD_LEASED = "shard.leased"
    SHARD_DONE = "shard.done"
    SHARD_FAILED = "shard.failed"
    SHARD_DEFERRED = "shard.deferred"
    SHARD_RETURNED = "shard.returned"
    SHARD_EXPIRED = "shard.expired"
    SHARD_ORPHANED = "shard.orphaned"
    SHARD_CANCELLED = "shard.cancelled"
    SHARD_RETRIED = "shard.retried"
    SHARD_DEVIATED = "shard.deviated"
    WORKER_REGISTERED = "worker.registered"
    WORKER_RUNNING = "worker.running"
    WORKER_DRAINING = "worker.draining"
    WORKER_STOPPED = "worker.stopped"
    WORKER_LOST = "worker.lost"
    PILOT_REQUESTED = "pilot.requested"
    PILOT_QUEUED = "pilot.queued"
    PILOT_RUNNING = "pilot.running"
    PILOT_DRAINING = "pilot.draining"
    PILOT_ENDED = "pilot.ended"
    PILOT_FAILED = "pilot.failed"
    USER_CHANGED = "user.changed"
    TOKEN_CREATED = "token.created"
    TOKEN_REVOKED = "token.revoked"
    SETTING_CHANGED = "setting.changed"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that jobs may name. ``info`` is its site map as JSON; the queue sets ``created_at``."""

    name: str
    source: str
    path: str
    revision: str
    dtype: str
    digest: str
    info: Json
    enabled: bool = True
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContent:
    """What a user submits and the queue gives back unchanged.

    ``graph`` and ``space`` are their JSON; ``arrays`` describes the saved arrays; ``tokens_per_task`` is what one
    task adds to a pass; ``archive`` is the root of the stores, ``archive_bytes`` what the job may fill there. A higher
    ``priority`` is leased first. ``key`` makes a submission idempotent for its user. Jobs of equal ``identity`` save
    the same where their tasks bind the same; ``options["reuse"]`` are those of them whose results it may take. So many
    ``retention_days`` after the job's end its results are deleted; None keeps them. It begins when the jobs ``after``
    which it comes, of the same user, are completed.
    """

    name: str
    user: str
    model: str
    graph: Json
    graph_digest: str
    space: Json
    seed: int
    tasks: int
    tile: tuple[int, ...]
    arrays: list[Json]
    options: Json
    tokens_per_task: int
    archive: str
    priority: int = 0
    max_retries: int = 2
    key: str | None = None
    archive_bytes: int = 0
    identity: str | None = None
    retention_days: int | None = None
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(JobContent):
    """A submission. ``shards`` are (first task, tasks) and cover the tasks in order; ``hold`` submits it on hold.

    With ``reuse`` the results of earlier jobs of its user and ``identity`` are taken where they can be.
    """

    shards: Sequence[tuple[int, int]]
    hold: bool = False
    reuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord(JobContent):
    """A job as it stands. ``tasks_done`` counts saved tasks and those done inside shards that are still leased.

    While it is ``awaiting`` jobs after which it comes it is ``HELD``. ``removed_at`` is when its user gave up its
    results; ``archive_bytes`` is 0 once they are gone.
    """

    id: int
    state: JobState
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    shards: int
    tasks_done: int
    tasks_failed: int
    reason: str | None
    removed_at: datetime | None = None
    awaiting: bool = False

    @property
    def expires_at(self) -> datetime | None:
        """When its results are deleted; None while it has not ended, or if they are kept."""
        if self.finished_at is None or self.retention_days is None:
            return None
        return self.finished_at + timedelta(days=self.retention_days)

    @property
    def store(self) -> Path:
        """Where the job's results lie, beneath the root that its row names."""
        return store(self.archive, self.user, self.id)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended, where its results lie, and what came of running some of its tasks again alone."""

    id: int
    state: JobState
    store: Path
    verified: Verified = field(default_factory=Verified)


def store(archive: str, user: str, job_id: int) -> Path:
    """Where a job's results lie, beneath the root that its row names."""
    return Path(archive) / user / f"{job_id}.zarr"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A block of tasks ``first_task … first_task + tasks - 1``. ``epoch`` is the fencing token of its newest lease.

    ``attempts`` counts tries that failed, ``deaths`` those whose worker died; ``ready_at`` ends a backoff;
    ``code`` and ``reason`` say why it is ``FAILED``.
    """

    id: int
    job_id: int
    index: int
    first_task: int
    tasks: int
    state: ShardState
    epoch: int
    attempts: int
    worker_id: int | None
    lease_until: datetime | None
    tasks_done: int
    tasks_failed: int
    deaths: int = 0
    ready_at: datetime | None = None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run ``shard`` until ``shard.lease_until``; ``shard.epoch`` proves it."""

    shard: ShardRecord
    job: JobRecord


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why one task failed; ``node`` is the graph node that raised, if one did."""

    task: int
    code: str
    message: str
    node: int | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """``lost`` shards are no longer the worker's: cancelled or taken. ``drain`` asks it to finish and stop."""

    lost: tuple[int, ...] = ()
    drain: bool = False


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A process that holds one model. Silent after ``alive_until``, it counts as dead.

    ``ready_at`` is its first lease, when the model had been loaded; ``worked_at`` its newest sign of work;
    ``gpu_seconds`` and ``tokens`` are what its shards cost, of which it was spared ``shared_tokens``; then what its
    device last said, memory in bytes.
    """

    id: int
    model: str
    host: str
    pid: int
    state: WorkerState
    registered_at: datetime
    heartbeat_at: datetime
    alive_until: datetime
    stopped_at: datetime | None
    reason: str | None
    ready_at: datetime | None
    worked_at: datetime | None
    gpu_seconds: float
    tokens: int
    device: str | None
    memory_used: int | None
    memory_total: int | None
    utilization: float | None
    shared_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The queue in numbers: ``jobs`` by state, ``tasks`` by model and state of their shard, bytes of results."""

    jobs: Mapping[JobState, int]
    tasks: Mapping[tuple[str, ShardState], int]
    archive_bytes: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One thing that happened: when, what, to whom, by whom and why (``detail["reason"]``). Never changed."""

    id: int
    at: datetime
    kind: EventKind
    actor: str
    job_id: int | None
    shard_id: int | None
    worker_id: int | None
    detail: Json
