"""How long the results of a job are kept, and how much of what workers did was spared by sharing.

Revision: 0009
After: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("retention_days", sa.Integer(), nullable=True))
    op.add_column("worker", sa.Column("shared_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    create_partial_index("ix_job_finished", "finished_at IS NOT NULL")
    create_partial_index("ix_job_kept", "retention_days IS NOT NULL AND removed_at IS NULL AND finished_at IS NOT NULL")


def downgrade() -> None:
    for index in ("ix_job_kept", "ix_job_finished"):
        op.drop_index(index, "job")
    op.drop_column("worker", "shared_tokens")
    op.drop_column("job", "retention_days")


def create_partial_index(name: str, rule: str) -> None:
    where = sa.text(rule)
    op.create_index(name, "job", ["finished_at"], sqlite_where=where, postgresql_where=where)
