"""The queue's tables; CHECK constraints say what a row may be."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from ndif_batch.queue.cluster import PilotState, Role
from ndif_batch.queue.columns import BigId, Instant, among, check, count, enum_of, partial_index
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

REVISION = "0013"
"""The newest script in ``migrations/``: its result is these tables."""

_FINAL = among("state", (state for state in JobState if state.final))
LEASABLE = (JobState.PENDING, JobState.RUNNING)
ALIVE = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)
ENDED_PILOTS = tuple(state for state in PilotState if state.final)

model = Table(
    "model",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("source", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("revision", String(255), nullable=False),
    Column("dtype", String(32), nullable=False),
    Column("digest", String(255), nullable=False),
    Column("info", JSON, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
)

graph = Table(
    "graph",
    metadata,
    Column("digest", String(128), primary_key=True),
    Column("body", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
)

job = Table(
    "job",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user", String(255), nullable=False),
    Column("model", ForeignKey("model.name"), nullable=False),
    Column("graph_digest", ForeignKey("graph.digest"), nullable=False),
    Column("space", JSON, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("tile", JSON, nullable=False),
    Column("arrays", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("tokens_per_task", Integer, nullable=False),
    Column("archive", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_retries", Integer, nullable=False),
    Column("key", String(255)),
    Column("state", enum_of(JobState, 16), nullable=False),
    Column("submitted_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("shards", Integer, nullable=False),
    Column("shards_left", Integer, nullable=False),
    count("tasks_done"),
    count("tasks_failed"),
    Column("reason", Text),
    Column("archive_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("identity", String(64)),
    Column("removed_at", Instant),
    Column("retention_days", Integer),
    Column("after", JSON),
    Column("awaiting", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("user", "key"),
    check("state", among("state", JobState)),
    check("finished", f"({_FINAL}) = (finished_at IS NOT NULL)"),
    check("pending_not_started", "state <> 'PENDING' OR started_at IS NULL"),
    check("running_started", "state NOT IN ('RUNNING', 'COMPLETED', 'FAILED') OR started_at IS NOT NULL"),
    check("final_has_no_shard_left", f"NOT ({_FINAL}) OR shards_left = 0"),
    check("completed_is_whole", "state <> 'COMPLETED' OR tasks_done = tasks"),
    check("failed_has_reason", "state <> 'FAILED' OR (tasks_failed > 0 AND reason IS NOT NULL)"),
    check("shards", "shards > 0 AND shards_left BETWEEN 0 AND shards"),
    check("tasks", "tasks_done >= 0 AND tasks_failed >= 0 AND tasks_done + tasks_failed <= tasks"),
    check("bounds", "tokens_per_task >= 0 AND max_retries >= 0"),
)
partial_index("ix_job_leasable", among("state", LEASABLE), job.c.model, job.c.user, job.c.priority.desc(), job.c.id)
Index("ix_job_user", job.c.user, job.c.id)
partial_index("ix_job_identity", "identity IS NOT NULL", job.c.user, job.c.identity, job.c.id)
partial_index("ix_job_removed", "removed_at IS NOT NULL AND archive_bytes > 0", job.c.id)
partial_index("ix_job_finished", "finished_at IS NOT NULL", job.c.finished_at)
KEPT = "retention_days IS NOT NULL AND removed_at IS NULL AND finished_at IS NOT NULL"
partial_index("ix_job_kept", KEPT, job.c.finished_at)

partial_index("ix_job_awaiting", "awaiting", job.c.id)

dependency = Table(
    "dependency",
    metadata,
    Column("after_id", ForeignKey("job.id"), nullable=False),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    PrimaryKeyConstraint("after_id", "job_id"),
)
Index("ix_dependency_job_id", dependency.c.job_id)

worker = Table(
    "worker",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("model", ForeignKey("model.name"), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", enum_of(WorkerState, 16), nullable=False),
    Column("registered_at", Instant, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("alive_until", Instant, nullable=False),
    Column("stopped_at", Instant),
    Column("reason", Text),
    Column("ready_at", Instant),
    Column("worked_at", Instant),
    Column("gpu_seconds", Float, nullable=False, server_default=text("0")),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("device", Text),
    Column("memory_used", BigInteger),
    Column("memory_total", BigInteger),
    Column("utilization", Float),
    Column("key", String(255)),
    Column("shared_tokens", BigInteger, nullable=False, server_default=text("0")),
    check("state", among("state", WorkerState)),
    check("stopped", "(state IN ('STOPPED', 'LOST')) = (stopped_at IS NOT NULL)"),
)
Index("ix_worker_key", worker.c.key, unique=True)
partial_index("ix_worker_alive", among("state", ALIVE), worker.c.alive_until)

shard = Table(
    "shard",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("first_task", Integer, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("state", enum_of(ShardState, 16), nullable=False, server_default=text("'PENDING'")),
    count("epoch"),
    count("attempts"),
    count("deaths"),
    Column("worker_id", ForeignKey("worker.id")),
    Column("lease_until", Instant),
    Column("ready_at", Instant),
    count("tasks_done"),
    count("tasks_failed"),
    Column("code", Text),
    Column("reason", Text),
    UniqueConstraint("job_id", "index"),
    check("state", among("state", ShardState)),
    check("lease_until", "(state = 'LEASED') = (lease_until IS NOT NULL)"),
    check("worker_id", "(state = 'LEASED') = (worker_id IS NOT NULL)"),
    check("ready_at", "state = 'PENDING' OR ready_at IS NULL"),
    check("reason", "(state = 'FAILED') = (code IS NOT NULL AND reason IS NOT NULL)"),
    check("tasks", "first_task >= 0 AND tasks > 0 AND tasks_done >= 0 AND tasks_failed >= 0"),
    check("done", "state <> 'DONE' OR tasks_done + tasks_failed = tasks"),
    check("failed", "state <> 'FAILED' OR (tasks_done = 0 AND tasks_failed = tasks)"),
    check("leased", "state <> 'LEASED' OR (epoch > 0 AND tasks_done <= tasks AND tasks_failed = 0)"),
    check("open", "state NOT IN ('PENDING', 'CANCELLED') OR (tasks_done = 0 AND tasks_failed = 0)"),
    check("counts", "epoch >= 0 AND attempts >= deaths AND deaths >= 0"),
)
partial_index("ix_shard_pending", "state = 'PENDING'", shard.c.job_id, shard.c.index)
partial_index("ix_shard_expiry", "lease_until IS NOT NULL", shard.c.lease_until)
partial_index("ix_shard_worker", "state = 'LEASED'", shard.c.worker_id)
partial_index("ix_shard_progress", "state = 'LEASED' AND tasks_done > 0", shard.c.job_id, shard.c.tasks_done)
partial_index("ix_shard_failed", "tasks_failed > 0", shard.c.job_id, shard.c.first_task)

task_error = Table(
    "task_error",
    metadata,
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("task", Integer, nullable=False),
    Column("shard_id", ForeignKey("shard.id"), nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("node", Integer),
    PrimaryKeyConstraint("job_id", "task"),
)

shard_check = Table(
    "shard_check",
    metadata,
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("shard_id", ForeignKey("shard.id"), nullable=False),
    Column("found", JSON, nullable=False),
    PrimaryKeyConstraint("job_id", "shard_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("kind", enum_of(EventKind, 32), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("job_id", BigId),
    Column("shard_id", BigId),
    Column("worker_id", BigId),
    Column("detail", JSON, nullable=False),
)
Index("ix_event_job_id", event.c.job_id, event.c.id)

user = Table(
    "user",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("role", enum_of(Role, 16), nullable=False),
    Column("shares", Float, nullable=False),
    Column("pending_tasks", BigInteger),
    Column("running_shards", BigInteger),
    Column("archive_bytes", BigInteger),
    Column("used", Float, nullable=False, server_default=text("0")),
    Column("used_at", Instant),
    Column("served_at", Instant),
    Column("created_at", Instant, nullable=False),
    count("leased_shards"),
    Column("leased_tokens", BigInteger, nullable=False, server_default=text("0")),
    check("leased", "leased_shards >= 0 AND leased_tokens >= 0"),
    check("role", among("role", Role)),
    check("shares", "shares > 0"),
    check("quotas", "pending_tasks >= 0 AND running_shards >= 0 AND archive_bytes >= 0"),
)

token = Table(
    "token",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("user", ForeignKey("user.name"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    check("expires_at", "expires_at > created_at"),
)
Index("ix_token_user", token.c.user, token.c.id)

waiting = Table(
    "waiting",
    metadata,
    Column("model", ForeignKey("model.name"), nullable=False),
    Column("user", ForeignKey("user.name"), nullable=False),
    Column("job_id", ForeignKey("job.id")),
    Column("priority", Integer),
    Column("since", Instant),
    Column("ready_at", Instant),
    PrimaryKeyConstraint("model", "user"),
    check("head", "(job_id IS NULL) = (priority IS NULL) AND (job_id IS NULL) = (since IS NULL)"),
    check("ready_at", "ready_at IS NULL OR job_id IS NOT NULL"),
)

usage = Table(
    "usage",
    metadata,
    Column("user", ForeignKey("user.name"), nullable=False),
    Column("hour", Instant, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("shared_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("user", "hour"),
    check("costs", "gpu_seconds >= 0 AND tokens >= 0"),
)

setting = Table(
    "setting",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("changed_by", String(255), nullable=False),
)

pilot = Table(
    "pilot",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("model", ForeignKey("model.name"), nullable=False),
    Column("launcher", String(64), nullable=False),
    Column("external_id", String(255)),
    Column("state", enum_of(PilotState, 16), nullable=False),
    Column("resources", JSON, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("reason", Text),
    Column("worker_id", ForeignKey("worker.id")),
    Column("draining_at", Instant),
    UniqueConstraint("name"),
    check("state", among("state", PilotState)),
    check("ended", f"({among('state', ENDED_PILOTS)}) = (ended_at IS NOT NULL)"),
    check("running_started", "state NOT IN ('RUNNING', 'DRAINING') OR started_at IS NOT NULL"),
    check("failed_has_reason", "state <> 'FAILED' OR reason IS NOT NULL"),
)
partial_index("ix_pilot_active", "ended_at IS NULL", pilot.c.id)
partial_index("ix_pilot_ended", "ended_at IS NOT NULL", pilot.c.model, pilot.c.id)

report = Table(
    "report",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("model", ForeignKey("model.name")),
    Column("reported_at", Instant, nullable=False),
    Column("measured", JSON, nullable=False),
)

leader = Table(
    "leader",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("until", Instant, nullable=False),
)
