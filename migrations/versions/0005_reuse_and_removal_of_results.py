"""What makes two jobs' tasks the same, and whose results were removed.

Revision: 0005
After: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("identity", sa.String(length=64), nullable=True))
    op.add_column("job", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    create_partial_index("ix_job_identity", "identity IS NOT NULL", "user", "identity", "id")
    create_partial_index("ix_job_removed", "removed_at IS NOT NULL AND archive_bytes > 0", "id")


def downgrade() -> None:
    for index in ("ix_job_removed", "ix_job_identity"):
        op.drop_index(index, "job")
    for column in ("removed_at", "identity"):
        op.drop_column("job", column)


def create_partial_index(name: str, rule: str, *columns: str) -> None:
    where = sa.text(rule)
    op.create_index(name, "job", list(columns), sqlite_where=where, postgresql_where=where)
