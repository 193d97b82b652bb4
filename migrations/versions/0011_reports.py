"""What workers and schedulers report of what they have measured.

Revision: 0011
After: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ndif_batch.queue.columns import Instant

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "report",
        sa.Column("source", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), sa.ForeignKey("model.name"), nullable=True),
        sa.Column("reported_at", Instant(), nullable=False),
        sa.Column("measured", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("report")
