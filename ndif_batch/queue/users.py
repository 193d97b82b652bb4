"""Users: their role, shares and quotas, and what they have used hour by hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    RowMapping,
    exists,
    func,
    or_,
    select,
    update,
)

from ndif_batch.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from ndif_batch.queue.access import check_user_name
from ndif_batch.queue.cluster import Cost, Quotas, Role, UsageRecord, UserRecord
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import job, shard, usage, user
from ndif_batch.queue.transitions import record
from ndif_batch.scheduling.policy import HIGHEST_OF_USERS

QUOTAS = ("pending_tasks", "running_shards", "archive_bytes")
INTERNAL = ("used", "used_at", "served_at", "leased_shards", "leased_tokens")
"""Columns that only leasing reads."""


def ensure(tx: Transaction, name: str) -> None:
    """A user appears with their first job or change: one share, no quotas."""
    tx.insert_new(user, {"name": name, "role": Role.USER, "shares": 1.0, "created_at": tx.now})


def create(tx: Transaction, name: str, role: Role, actor: str) -> None:
    """A new user; ``ConflictError`` if there is one of that name, ``UsageError`` for what cannot be a name."""
    check_user_name(name)
    row = {"name": name, "role": role, "shares": 1.0, "created_at": tx.now}
    if tx.insert_new(user, row) is None:
        raise ConflictError(f"there is a user {name!r} already", hint=f"change it: ndif-batch user set {name}")
    record(tx, EventKind.USER_CHANGED, actor, {"user": name, "role": role})


def get(tx: Transaction, name: str) -> UserRecord:
    """One user; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(select(user).where(user.c.name == name)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no user {name!r}")
    return _record(row)


def every(tx: Transaction, limit: int | None, after: str) -> list[UserRecord]:
    """All users by name; ``after`` is the name to go on from."""
    query = select(user).where(user.c.name > after).order_by(user.c.name).limit(limit)
    return [_record(row) for row in tx.connection.execute(query).mappings()]


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
    """What a user may do from now on, with the tokens that they have already, too."""
    _change(tx, name, {"role": role}, actor)


def is_admin(tx: Transaction, name: str) -> bool:
    """Whether a user is an administrator."""
    return tx.connection.scalar(select(user.c.role).where(user.c.name == name)) == Role.ADMIN


def require_priority(tx: Transaction, priority: int, actor: str) -> None:
    """``NotAllowedError`` for a priority that is an administrator's to give, where there is one."""
    if priority <= HIGHEST_OF_USERS or is_admin(tx, actor):
        return
    if tx.connection.scalar(select(exists().where(user.c.role == Role.ADMIN))):
        raise NotAllowedError(
            f"{actor!r} may not give the priority {priority}: users give {HIGHEST_OF_USERS} and less",
            hint="ask an administrator to run `ndif-batch priority`",
        )


def lock(tx: Transaction, names: Collection[str]) -> dict[str, int]:
    """Lock users, in order; of those whose running shards are limited, how many more they may lease."""
    query = select(user.c.name, user.c.running_shards - user.c.leased_shards).where(user.c.name.in_(names))
    rows = tx.connection.execute(query.order_by(user.c.name).with_for_update(key_share=True))
    return {name: room for name, room in rows if room is not None}


def usage_of(
    tx: Transaction, name: str | None, since: datetime | None, limit: int | None, after: str
) -> list[UsageRecord]:
    """What one user, or everybody, has used hour by hour, oldest first; of the hour ``since`` users ``after`` one."""
    query = select(usage).order_by(usage.c.hour, usage.c.user).limit(limit)
    if name is not None:
        query = query.where(usage.c.user == name)
    if since is not None:
        query = query.where(or_(usage.c.hour > since, (usage.c.hour == since) & (usage.c.user > after)))
    return [
        UsageRecord(row.user, row.hour, Cost(row.gpu_seconds, row.tokens, row.shared_tokens))
        for row in tx.connection.execute(query)
    ]


def _change(tx: Transaction, name: str, values: Mapping[str, Any], actor: str) -> None:
    check_user_name(name)
    ensure(tx, name)
    tx.connection.execute(update(user).where(user.c.name == name).values(**values))
    record(tx, EventKind.USER_CHANGED, actor, {"user": name, **values})


def _record(row: RowMapping) -> UserRecord:
    fields = {name: value for name, value in row.items() if name not in INTERNAL}
    return UserRecord(
        **{k: v for k, v in fields.items() if k not in QUOTAS}, quotas=Quotas(*(fields[q] for q in QUOTAS))
    )
