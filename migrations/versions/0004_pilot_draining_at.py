"""When a pilot was asked to end.

Revision: 0004
After: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pilot", sa.Column("draining_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE pilot SET draining_at = CURRENT_TIMESTAMP WHERE state = 'DRAINING'")


def downgrade() -> None:
    op.drop_column("pilot", "draining_at")
