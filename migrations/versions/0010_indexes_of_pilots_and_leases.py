"""Indexes for the pilots that are told, and for leased shards such that only the right one can be used.

Revision: 0010
After: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

LEASED = {
    "ix_shard_expiry": ("lease_until IS NOT NULL", "lease_until"),
    "ix_shard_worker": ("worker_id IS NOT NULL", "worker_id"),
    "ix_shard_progress": ("state = 'LEASED' AND tasks_done > 0", "job_id", "tasks_done"),
}


def upgrade() -> None:
    create_partial_index("ix_pilot_active", "pilot", "ended_at IS NULL", "id")
    create_partial_index("ix_pilot_ended", "pilot", "ended_at IS NOT NULL", "model", "id")
    for name, (rule, *columns) in LEASED.items():
        op.drop_index(name, "shard")
        create_partial_index(name, "shard", rule, *columns)


def downgrade() -> None:
    for name, (_, *columns) in LEASED.items():
        op.drop_index(name, "shard")
        create_partial_index(name, "shard", "state = 'LEASED'", *columns)
    for name in ("ix_pilot_ended", "ix_pilot_active"):
        op.drop_index(name, "pilot")


def create_partial_index(name: str, table: str, rule: str, *columns: str) -> None:
    where = sa.text(rule)
    op.create_index(name, table, list(columns), sqlite_where=where, postgresql_where=where)
