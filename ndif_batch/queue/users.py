"""Users: their role, shares and quotas, and what they have used hour by hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.queue import controls
from ndif_batch.queue.cluster import Cost, Quotas, Role, UsageRecord, UserRecord
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import job, shard, usage, user
from ndif_batch.queue.transitions import record
from ndif_batch.scheduling.policy import decayed

QUOTAS = ("pending_tasks", "running_shards", "archive_bytes")


def ensure(tx: Transaction, name: str) -> None:
    """A user appears with their first job or change: one share, no quotas."""
    tx.insert_new(user, {"name": name, "role": Role.USER, "shares": 1.0, "created_at": tx.now})


def get(tx: Transaction, name: str) -> UserRecord:
    """One user; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(select(user).where(user.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no user {name!r}")
    return _record(row)


def every(tx: Transaction) -> list[UserRecord]:
    """All users by name."""
    return [_record(row) for row in tx.connection.execute(select(user).order_by(user.c.name)).mappings()]


def running_shards(tx: Transaction) -> dict[str, int]:
    """How many shards of each user are leased; those of whom none is are left out."""
    query = (
        select(job.c.user, func.count().label("shards"))
        .join_from(shard, job)
        .where(state_in(shard.c.state, [ShardState.LEASED]))
    )
    return {row.user: row.shards for row in tx.connection.execute(query.group_by(job.c.user))}


def set_shares(tx: Transaction, name: str, shares: float, actor: str) -> None:
    """``UsageError`` unless ``shares`` is positive and finite."""
    if not 0 < shares < float("inf"):
        raise UsageError(f"{shares} shares: a user's shares are a positive number")
    _change(tx, name, {"shares": float(shares)}, actor)


def set_quotas(tx: Transaction, name: str, quotas: Quotas, actor: str) -> None:
    """``UsageError`` for a negative number."""
    values = {quota: getattr(quotas, quota) for quota in QUOTAS}
    wrong = next((quota for quota, value in values.items() if value is not None and value < 0), None)
    if wrong is not None:
        raise UsageError(f"{wrong}: a quota is not negative")
    _change(tx, name, values, actor)


def set_role(tx: Transaction, name: str, role: Role, actor: str) -> None:
    """Make a user an administrator, or an ordinary user again."""
    _change(tx, name, {"role": role}, actor)


def serve(tx: Transaction, names: Collection[str]) -> None:
    """Users that were just leased something wait anew."""
    for name in sorted(names):
        tx.connection.execute(update(user).where(user.c.name == name).values(served_at=tx.now))


def still_used(used: float, used_at: datetime | None, now: datetime, half_life_hours: float) -> float:
    """What of the GPU-seconds ``used`` until ``used_at`` still counts."""
    if used_at is None:
        return 0.0
    return decayed([((now - used_at).total_seconds() / 3600, used)], half_life_hours)


def charge(tx: Transaction, name: str, cost: Cost) -> None:
    """Add ``cost`` to what the user has used: in this hour, and of what decays."""
    locked = select(user.c.used, user.c.used_at).where(user.c.name == name).with_for_update(key_share=True)
    before = tx.connection.execute(locked).one()
    used = still_used(before.used, before.used_at, tx.now, controls.half_life_hours(tx)) + cost.gpu_seconds
    tx.connection.execute(update(user).where(user.c.name == name).values(used=used, used_at=tx.now))
    row = {
        "user": name,
        "hour": tx.now.replace(minute=0, second=0, microsecond=0),
        "gpu_seconds": cost.gpu_seconds,
        "tokens": cost.tokens,
        "shared_tokens": cost.shared_tokens,
    }
    insert = postgresql.insert if tx.connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(usage).values(row)
    sums = {name: usage.c[name] + statement.excluded[name] for name in ("gpu_seconds", "tokens", "shared_tokens")}
    tx.connection.execute(statement.on_conflict_do_update(index_elements=[usage.c.user, usage.c.hour], set_=sums))


def usage_of(tx: Transaction, name: str | None, since: datetime | None) -> list[UsageRecord]:
    """What one user, or everybody, has used hour by hour, oldest first."""
    query = select(usage).order_by(usage.c.hour, usage.c.user)
    if name is not None:
        query = query.where(usage.c.user == name)
    if since is not None:
        query = query.where(usage.c.hour >= since)
    return [
        UsageRecord(row.user, row.hour, Cost(row.gpu_seconds, row.tokens, row.shared_tokens))
        for row in tx.connection.execute(query)
    ]


def _change(tx: Transaction, name: str, values: Mapping[str, Any], actor: str) -> None:
    ensure(tx, name)
    tx.connection.execute(update(user).where(user.c.name == name).values(**values))
    record(tx, EventKind.USER_CHANGED, actor, {"user": name, **values})


def _record(row: RowMapping) -> UserRecord:
    fields = {name: value for name, value in row.items() if name not in ("used", "used_at", "served_at")}
    return UserRecord(
        **{k: v for k, v in fields.items() if k not in QUOTAS}, quotas=Quotas(*(fields[q] for q in QUOTAS))
    )
