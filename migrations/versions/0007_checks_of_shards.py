"""What came of running some of a shard's tasks again alone.

Revision: 0007
After: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "shard_check",
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("shard_id", BigId, nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_shard_check_job_id"),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name="fk_shard_check_shard_id"),
        sa.PrimaryKeyConstraint("job_id", "shard_id", name="pk_shard_check"),
    )


def downgrade() -> None:
    op.drop_table("shard_check")
