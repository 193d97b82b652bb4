"""Jobs, shards, leases, events.

Revision: 0001
After: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "graph",
        sa.Column("digest", sa.String(length=128), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_graph"),
    )
    op.create_table(
        "model",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(length=255), nullable=False),
        sa.Column("dtype", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=255), nullable=False),
        sa.Column("info", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_model"),
    )
    op.create_table(
        "job",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("graph_digest", sa.String(length=128), nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("tile", sa.JSON(), nullable=False),
        sa.Column("arrays", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("tokens_per_task", sa.Integer(), nullable=False),
        sa.Column("archive", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("shards", sa.Integer(), nullable=False),
        sa.Column("shards_left", sa.Integer(), nullable=False),
        sa.Column("tasks_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tasks_failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('CANCELLED', 'COMPLETED', 'FAILED')) = (finished_at IS NOT NULL)", name=op.f("ck_job_finished")
        ),
        sa.CheckConstraint(
            "NOT (state IN ('CANCELLED', 'COMPLETED', 'FAILED')) OR shards_left = 0",
            name=op.f("ck_job_final_has_no_shard_left"),
        ),
        sa.CheckConstraint("state <> 'COMPLETED' OR tasks_done = tasks", name=op.f("ck_job_completed_is_whole")),
        sa.CheckConstraint(
            "state <> 'FAILED' OR (tasks_failed > 0 AND reason IS NOT NULL)", name=op.f("ck_job_failed_has_reason")
        ),
        sa.CheckConstraint("state <> 'PENDING' OR started_at IS NULL", name=op.f("ck_job_pending_not_started")),
        sa.CheckConstraint(
            "state IN ('CANCELLED', 'COMPLETED', 'FAILED', 'HELD', 'PENDING', 'RUNNING')", name=op.f("ck_job_state")
        ),
        sa.CheckConstraint(
            "state NOT IN ('RUNNING', 'COMPLETED', 'FAILED') OR started_at IS NOT NULL",
            name=op.f("ck_job_running_started"),
        ),
        sa.CheckConstraint("shards > 0 AND shards_left BETWEEN 0 AND shards", name=op.f("ck_job_shards")),
        sa.CheckConstraint(
            "tasks_done >= 0 AND tasks_failed >= 0 AND tasks_done + tasks_failed <= tasks", name=op.f("ck_job_tasks")
        ),
        sa.CheckConstraint("tokens_per_task >= 0 AND max_retries >= 0", name=op.f("ck_job_bounds")),
        sa.ForeignKeyConstraint(["graph_digest"], ["graph.digest"], name="fk_job_graph_digest"),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name="fk_job_model"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("user", "key", name="uq_job_user_key"),
    )
    op.create_index(
        "ix_job_leasable",
        "job",
        ["model", sa.literal_column("priority DESC"), "id"],
        sqlite_where=sa.text("state IN ('PENDING', 'RUNNING')"),
        postgresql_where=sa.text("state IN ('PENDING', 'RUNNING')"),
    )
    op.create_index("ix_job_user", "job", ["user", "id"])

    op.create_table(
        "worker",
        sa.Column("id", BigId, nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alive_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("(state IN ('STOPPED', 'LOST')) = (stopped_at IS NOT NULL)", name=op.f("ck_worker_stopped")),
        sa.CheckConstraint(
            "state IN ('DRAINING', 'LOST', 'RUNNING', 'STARTING', 'STOPPED')", name=op.f("ck_worker_state")
        ),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name="fk_worker_model"),
        sa.PrimaryKeyConstraint("id", name="pk_worker"),
    )
    op.create_index(
        "ix_worker_alive",
        "worker",
        ["alive_until"],
        sqlite_where=sa.text("state IN ('DRAINING', 'RUNNING', 'STARTING')"),
        postgresql_where=sa.text("state IN ('DRAINING', 'RUNNING', 'STARTING')"),
    )

    op.create_table(
        "shard",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("first_task", sa.Integer(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), server_default=sa.text("'PENDING'"), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("deaths", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_id", BigId, nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tasks_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("tasks_failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'FAILED') = (code IS NOT NULL AND reason IS NOT NULL)", name=op.f("ck_shard_reason")
        ),
        sa.CheckConstraint("(state = 'LEASED') = (lease_until IS NOT NULL)", name=op.f("ck_shard_lease_until")),
        sa.CheckConstraint("(state = 'LEASED') = (worker_id IS NOT NULL)", name=op.f("ck_shard_worker_id")),
        sa.CheckConstraint("state <> 'DONE' OR tasks_done + tasks_failed = tasks", name=op.f("ck_shard_done")),
        sa.CheckConstraint(
            "state <> 'FAILED' OR (tasks_done = 0 AND tasks_failed = tasks)", name=op.f("ck_shard_failed")
        ),
        sa.CheckConstraint(
            "state <> 'LEASED' OR (epoch > 0 AND tasks_done <= tasks AND tasks_failed = 0)",
            name=op.f("ck_shard_leased"),
        ),
        sa.CheckConstraint("state = 'PENDING' OR ready_at IS NULL", name=op.f("ck_shard_ready_at")),
        sa.CheckConstraint(
            "state IN ('CANCELLED', 'DONE', 'FAILED', 'LEASED', 'PENDING')", name=op.f("ck_shard_state")
        ),
        sa.CheckConstraint(
            "state NOT IN ('PENDING', 'CANCELLED') OR (tasks_done = 0 AND tasks_failed = 0)", name=op.f("ck_shard_open")
        ),
        sa.CheckConstraint("epoch >= 0 AND attempts >= deaths AND deaths >= 0", name=op.f("ck_shard_counts")),
        sa.CheckConstraint(
            "first_task >= 0 AND tasks > 0 AND tasks_done >= 0 AND tasks_failed >= 0", name=op.f("ck_shard_tasks")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_shard_job_id"),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name="fk_shard_worker_id"),
        sa.PrimaryKeyConstraint("id", name="pk_shard"),
        sa.UniqueConstraint("job_id", "index", name="uq_shard_job_id_index"),
    )
    op.create_index(
        "ix_shard_expiry",
        "shard",
        ["lease_until"],
        sqlite_where=sa.text("state = 'LEASED'"),
        postgresql_where=sa.text("state = 'LEASED'"),
    )
    op.create_index(
        "ix_shard_failed",
        "shard",
        ["job_id", "first_task"],
        sqlite_where=sa.text("tasks_failed > 0"),
        postgresql_where=sa.text("tasks_failed > 0"),
    )
    op.create_index(
        "ix_shard_pending",
        "shard",
        ["job_id", "index"],
        sqlite_where=sa.text("state = 'PENDING'"),
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_index(
        "ix_shard_progress",
        "shard",
        ["job_id", "tasks_done"],
        sqlite_where=sa.text("state = 'LEASED'"),
        postgresql_where=sa.text("state = 'LEASED'"),
    )
    op.create_index(
        "ix_shard_worker",
        "shard",
        ["worker_id"],
        sqlite_where=sa.text("state = 'LEASED'"),
        postgresql_where=sa.text("state = 'LEASED'"),
    )

    op.create_table(
        "event",
        sa.Column("id", BigId, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("job_id", BigId, nullable=True),
        sa.Column("shard_id", BigId, nullable=True),
        sa.Column("worker_id", BigId, nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id"),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name="fk_event_shard_id"),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name="fk_event_worker_id"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_job_id", "event", ["job_id", "id"])

    op.create_table(
        "task_error",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("task", sa.Integer(), nullable=False),
        sa.Column("shard_id", BigId, nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("node", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_task_error_job_id"),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name="fk_task_error_shard_id"),
        sa.PrimaryKeyConstraint("job_id", "task", name="pk_task_error"),
    )


def downgrade() -> None:
    for table in ("task_error", "event", "shard", "worker", "job", "model", "graph"):
        op.drop_table(table)
