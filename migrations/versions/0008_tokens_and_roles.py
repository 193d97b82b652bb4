"""Tokens of users, and the roles of those who only read and those who only work.

Revision: 0008
After: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OLD, NEW = "role IN ('admin', 'user')", "role IN ('admin', 'reader', 'user', 'worker')"


def upgrade() -> None:
    replace_check(OLD, NEW)
    op.create_table(
        "token",
        sa.Column("id", BigId, nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_token_expires_at")),
        sa.ForeignKeyConstraint(["user"], ["user.name"], name="fk_token_user"),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
    )
    op.create_index("ix_token_user", "token", ["user", "id"])


def downgrade() -> None:
    op.drop_table("token")
    op.execute("UPDATE \"user\" SET role = 'user' WHERE role IN ('reader', 'worker')")
    replace_check(NEW, OLD)


def replace_check(old: str, new: str) -> None:
    """SQLite cannot change a rule but by copying the table, to which others refer, or as its manual says: in place."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_user_role"), "user", type_="check")
        op.create_check_constraint(op.f("ck_user_role"), "user", new)
        return
    op.execute("PRAGMA writable_schema = ON")
    change = sa.text("UPDATE sqlite_schema SET sql = replace(sql, :old, :new) WHERE name = 'user'")
    op.get_bind().execute(change, {"old": old, "new": new})
    op.execute("PRAGMA writable_schema = RESET")
