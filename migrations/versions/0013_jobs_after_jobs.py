"""Jobs that begin when others are completed.

Revision: 0013
After: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ndif_batch.queue.columns import BigId

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("after", sa.JSON(), nullable=True))
    op.add_column("job", sa.Column("awaiting", sa.Boolean(), server_default=sa.false(), nullable=False))
    where = sa.text("awaiting")
    op.create_index("ix_job_awaiting", "job", ["id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "dependency",
        sa.Column("after_id", BigId, sa.ForeignKey("job.id"), nullable=False),
        sa.Column("job_id", BigId, sa.ForeignKey("job.id"), nullable=False),
        sa.PrimaryKeyConstraint("after_id", "job_id"),
    )
    op.create_index("ix_dependency_job_id", "dependency", ["job_id"])


def downgrade() -> None:
    op.drop_table("dependency")
    op.drop_index("ix_job_awaiting", "job")
    op.drop_column("job", "awaiting")
    op.drop_column("job", "after")
