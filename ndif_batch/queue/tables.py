"""The queue's tables; CHECK constraints say what a row may be."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

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

REVISION = "0001"
"""The newest script in ``migrations/``: its result is these tables."""

BigId = BigInteger().with_variant(Integer, "sqlite")


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite, which knows no zones, keeps it as text that sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as UTC, without a zone where the database has none."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read back as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _enum(kind: type[StrEnum], length: int) -> Enum:
    return Enum(kind, native_enum=False, length=length, values_callable=lambda e: [member.value for member in e])


def _among(column: str, members: Iterable[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(member.value) for member in sorted(members))})"


def _check(name: str, rule: str) -> CheckConstraint:
    return CheckConstraint(text(rule), name=name)


def _count(name: str, **options: Any) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"), **options)


def _index(name: str, rule: str, *columns: ColumnElement[Any]) -> None:
    Index(name, *columns, sqlite_where=text(rule), postgresql_where=text(rule))


_FINAL = _among("state", (state for state in JobState if state.final))
LEASABLE = (JobState.PENDING, JobState.RUNNING)
ALIVE = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)

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
    Column("state", _enum(JobState, 16), nullable=False),
    Column("submitted_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("shards", Integer, nullable=False),
    Column("shards_left", Integer, nullable=False),
    _count("tasks_done"),
    _count("tasks_failed"),
    Column("reason", Text),
    UniqueConstraint("user", "key"),
    _check("state", _among("state", JobState)),
    _check("finished", f"({_FINAL}) = (finished_at IS NOT NULL)"),
    _check("pending_not_started", "state <> 'PENDING' OR started_at IS NULL"),
    _check("running_started", "state NOT IN ('RUNNING', 'COMPLETED', 'FAILED') OR started_at IS NOT NULL"),
    _check("final_has_no_shard_left", f"NOT ({_FINAL}) OR shards_left = 0"),
    _check("completed_is_whole", "state <> 'COMPLETED' OR tasks_done = tasks"),
    _check("failed_has_reason", "state <> 'FAILED' OR (tasks_failed > 0 AND reason IS NOT NULL)"),
    _check("shards", "shards > 0 AND shards_left BETWEEN 0 AND shards"),
    _check("tasks", "tasks_done >= 0 AND tasks_failed >= 0 AND tasks_done + tasks_failed <= tasks"),
    _check("bounds", "tokens_per_task >= 0 AND max_retries >= 0"),
)
_index("ix_job_leasable", _among("state", LEASABLE), job.c.model, job.c.priority.desc(), job.c.id)
Index("ix_job_user", job.c.user, job.c.id)

worker = Table(
    "worker",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("model", ForeignKey("model.name"), nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("state", _enum(WorkerState, 16), nullable=False),
    Column("registered_at", Instant, nullable=False),
    Column("heartbeat_at", Instant, nullable=False),
    Column("alive_until", Instant, nullable=False),
    Column("stopped_at", Instant),
    Column("reason", Text),
    _check("state", _among("state", WorkerState)),
    _check("stopped", "(state IN ('STOPPED', 'LOST')) = (stopped_at IS NOT NULL)"),
)
_index("ix_worker_alive", _among("state", ALIVE), worker.c.alive_until)

shard = Table(
    "shard",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("index", Integer, nullable=False),
    Column("first_task", Integer, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("state", _enum(ShardState, 16), nullable=False, server_default=text("'PENDING'")),
    _count("epoch"),
    _count("attempts"),
    _count("deaths"),
    Column("worker_id", ForeignKey("worker.id")),
    Column("lease_until", Instant),
    Column("ready_at", Instant),
    _count("tasks_done"),
    _count("tasks_failed"),
    Column("code", Text),
    Column("reason", Text),
    UniqueConstraint("job_id", "index"),
    _check("state", _among("state", ShardState)),
    _check("lease_until", "(state = 'LEASED') = (lease_until IS NOT NULL)"),
    _check("worker_id", "(state = 'LEASED') = (worker_id IS NOT NULL)"),
    _check("ready_at", "state = 'PENDING' OR ready_at IS NULL"),
    _check("reason", "(state = 'FAILED') = (code IS NOT NULL AND reason IS NOT NULL)"),
    _check("tasks", "first_task >= 0 AND tasks > 0 AND tasks_done >= 0 AND tasks_failed >= 0"),
    _check("done", "state <> 'DONE' OR tasks_done + tasks_failed = tasks"),
    _check("failed", "state <> 'FAILED' OR (tasks_done = 0 AND tasks_failed = tasks)"),
    _check("leased", "state <> 'LEASED' OR (epoch > 0 AND tasks_done <= tasks AND tasks_failed = 0)"),
    _check("open", "state NOT IN ('PENDING', 'CANCELLED') OR (tasks_done = 0 AND tasks_failed = 0)"),
    _check("counts", "epoch >= 0 AND attempts >= deaths AND deaths >= 0"),
)
_index("ix_shard_pending", "state = 'PENDING'", shard.c.job_id, shard.c.index)
_index("ix_shard_expiry", "state = 'LEASED'", shard.c.lease_until)
_index("ix_shard_worker", "state = 'LEASED'", shard.c.worker_id)
_index("ix_shard_progress", "state = 'LEASED'", shard.c.job_id, shard.c.tasks_done)
_index("ix_shard_failed", "tasks_failed > 0", shard.c.job_id, shard.c.first_task)

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

event = Table(
    "event",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("kind", _enum(EventKind, 32), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("job_id", ForeignKey("job.id")),
    Column("shard_id", ForeignKey("shard.id")),
    Column("worker_id", ForeignKey("worker.id")),
    Column("detail", JSON, nullable=False),
)
Index("ix_event_job_id", event.c.job_id, event.c.id)
