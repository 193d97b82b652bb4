"""The key under which a worker registers, so that it may do so again.

Revision: 0003
After: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("key", sa.String(length=255), nullable=True))
    op.create_index("ix_worker_key", "worker", ["key"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_worker_key", "worker")
    op.drop_column("worker", "key")
