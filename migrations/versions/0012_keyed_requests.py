"""What was asked under an idempotency key, and its answer.

Revision: 0012
After: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ndif_batch.queue.columns import BigId, Instant

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keyed_request",
        sa.Column("id", BigId, primary_key=True),
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("until", Instant(), nullable=False),
        sa.UniqueConstraint("caller", "key", name=op.f("uq_keyed_request_caller_key")),
        sa.CheckConstraint("answered OR answer IS NULL", name=op.f("ck_keyed_request_answer")),
    )
    op.create_index("ix_keyed_request_until", "keyed_request", ["until"])


def downgrade() -> None:
    op.drop_table("keyed_request")
