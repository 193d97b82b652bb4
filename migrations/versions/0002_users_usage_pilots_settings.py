"""Users with shares and quotas, usage, settings, pilots, the leader's lease; what workers measure.

Revision: 0002
After: 0001
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("job", sa.Column("archive_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.drop_index("ix_job_leasable", "job")
    create_leasable_index("model", "user", "priority DESC", "id")
    for column in worker_columns():
        op.add_column("worker", column)

    op.create_table(
        "user",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("shares", sa.Float(), nullable=False),
        sa.Column("pending_tasks", sa.BigInteger(), nullable=True),
        sa.Column("running_shards", sa.BigInteger(), nullable=True),
        sa.Column("archive_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('admin', 'user')", name=op.f("ck_user_role")),
        sa.CheckConstraint("shares > 0", name=op.f("ck_user_shares")),
        sa.CheckConstraint(
            "pending_tasks >= 0 AND running_shards >= 0 AND archive_bytes >= 0", name=op.f("ck_user_quotas")
        ),
        sa.PrimaryKeyConstraint("name", name="pk_user"),
    )
    op.execute(
        'INSERT INTO "user" (name, role, shares, created_at) '
        'SELECT "user", \'user\', 1, MIN(submitted_at) FROM job GROUP BY "user"'
    )
    op.create_table(
        "usage",
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gpu_seconds", sa.Float(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("shared_tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("gpu_seconds >= 0 AND tokens >= 0", name=op.f("ck_usage_costs")),
        sa.ForeignKeyConstraint(["user"], ["user.name"], name="fk_usage_user"),
        sa.PrimaryKeyConstraint("user", "hour", name="pk_usage"),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_setting"),
    )
    op.create_table(
        "pilot",
        sa.Column("id", BigId, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("launcher", sa.String(length=64), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("resources", sa.JSON(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("worker_id", BigId, nullable=True),
        sa.CheckConstraint(
            "state IN ('DRAINING', 'ENDED', 'FAILED', 'QUEUED', 'REQUESTED', 'RUNNING')", name=op.f("ck_pilot_state")
        ),
        sa.CheckConstraint("(state IN ('ENDED', 'FAILED')) = (ended_at IS NOT NULL)", name=op.f("ck_pilot_ended")),
        sa.CheckConstraint(
            "state NOT IN ('RUNNING', 'DRAINING') OR started_at IS NOT NULL", name=op.f("ck_pilot_running_started")
        ),
        sa.CheckConstraint("state <> 'FAILED' OR reason IS NOT NULL", name=op.f("ck_pilot_failed_has_reason")),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name="fk_pilot_model"),
        sa.ForeignKeyConstraint(["worker_id"], ["worker.id"], name="fk_pilot_worker_id"),
        sa.PrimaryKeyConstraint("id", name="pk_pilot"),
        sa.UniqueConstraint("name", name="uq_pilot_name"),
    )
    op.create_table(
        "leader",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leader"),
    )


def downgrade() -> None:
    for table in ("leader", "pilot", "setting", "usage", "user"):
        op.drop_table(table)
    for column in worker_columns():
        op.drop_column("worker", column.name)
    op.drop_index("ix_job_leasable", "job")
    create_leasable_index("model", "priority DESC", "id")
    op.drop_column("job", "archive_bytes")


def create_leasable_index(*columns: str) -> None:
    where = sa.text("state IN ('PENDING', 'RUNNING')")
    ordered: list[str | sa.ColumnClause[Any]] = [
        sa.literal_column(column) if " " in column else column for column in columns
    ]
    op.create_index("ix_job_leasable", "job", ordered, sqlite_where=where, postgresql_where=where)


def worker_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gpu_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("memory_used", sa.BigInteger(), nullable=True),
        sa.Column("memory_total", sa.BigInteger(), nullable=True),
        sa.Column("utilization", sa.Float(), nullable=True),
    ]
