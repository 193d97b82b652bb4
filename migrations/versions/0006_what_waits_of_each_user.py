"""What of each user waits and is leased, so that a lease reads no shards to know whose turn it is.

Revision: 0006
After: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

NOT_NEGATIVE = "CONSTRAINT ck_user_leased CHECK (leased_shards >= 0 AND leased_tokens >= 0)"
"""With its column, or SQLite would have to copy a table that others refer to."""

LEASED = """
    FROM shard JOIN job ON job.id = shard.job_id WHERE shard.state = 'LEASED' AND job."user" = "user".name
"""
WAITING = """
    INSERT INTO waiting (model, "user", job_id, priority, since)
    SELECT model, "user", id, priority, submitted_at FROM (
        SELECT job.*, row_number() OVER (PARTITION BY model, "user" ORDER BY priority DESC, id) AS place FROM job
        WHERE state IN ('PENDING', 'RUNNING')
        AND EXISTS (SELECT 1 FROM shard WHERE shard.job_id = job.id AND shard.state = 'PENDING')
    ) AS heads WHERE place = 1
"""


def upgrade() -> None:
    op.execute('ALTER TABLE "user" ADD COLUMN leased_shards INTEGER DEFAULT 0 NOT NULL')
    op.execute(f'ALTER TABLE "user" ADD COLUMN leased_tokens BIGINT DEFAULT 0 NOT NULL {NOT_NEGATIVE}')
    op.execute(f'UPDATE "user" SET leased_shards = (SELECT count(*) {LEASED})')
    tokens = "coalesce(sum(shard.tasks * job.tokens_per_task), 0)"
    op.execute(f'UPDATE "user" SET leased_tokens = (SELECT {tokens} {LEASED})')
    op.create_table(
        "waiting",
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("job_id", BigId, nullable=True),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(job_id IS NULL) = (priority IS NULL) AND (job_id IS NULL) = (since IS NULL)",
            name=op.f("ck_waiting_head"),
        ),
        sa.CheckConstraint("ready_at IS NULL OR job_id IS NOT NULL", name=op.f("ck_waiting_ready_at")),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name="fk_waiting_model"),
        sa.ForeignKeyConstraint(["user"], ["user.name"], name="fk_waiting_user"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_waiting_job_id"),
        sa.PrimaryKeyConstraint("model", "user", name="pk_waiting"),
    )
    op.execute(WAITING)
    with op.batch_alter_table("event") as event:
        for column in ("job_id", "shard_id", "worker_id"):
            event.drop_constraint(f"fk_event_{column}", type_="foreignkey")


def downgrade() -> None:
    with op.batch_alter_table("event") as event:
        for column in ("job_id", "shard_id", "worker_id"):
            event.create_foreign_key(f"fk_event_{column}", column.removesuffix("_id"), [column], ["id"])
    op.drop_table("waiting")
    op.drop_column("user", "leased_tokens")
    op.drop_column("user", "leased_shards")
