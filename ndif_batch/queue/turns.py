"""Whose turn it is: the users for whom shards of a model wait, in the order of :mod:`ndif_batch.scheduling.policy`.

The policy decides among the few who come first; the database finds them, with the same formula, among thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Float, Integer, Select, bindparam, case, func, or_, select

from ndif_batch.queue import users
from ndif_batch.queue.columns import Instant, seconds_from
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.tables import user, waiting
from ndif_batch.scheduling import Candidate, Whole
from ndif_batch.scheduling.policy import AGE_SECONDS


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's place: ``head`` stands for the first of their jobs; ``room`` is what they may still lease, if limited.

    ``usage`` counts what they have leased.
    """

    head: Candidate
    served_at: datetime | None
    usage: float
    shares: float
    room: int | None


def first(
    tx: Transaction, model: str, seconds_per_token: float, half_life_hours: float, limit: int
) -> tuple[list[Turn], Whole]:
    """The first ``limit`` users, and the sums over all that wait."""
    asked = {"model": model, "now": tx.now, "pace": seconds_per_token, "half_life": half_life_hours, "most": limit}
    rows = tx.connection.execute(turn_query(), asked).all()
    whole = Whole(rows[0].all_usage, rows[0].all_shares) if rows else Whole(0.0, 0.0)
    return [_turn(row, tx.now) for row in rows], whole


@cache
def turn_query() -> Select[Any]:
    """Reads one small row a user that waits, and no job or shard."""
    now = bindparam("now", type_=Instant)
    usage = users.still_used() + user.c.leased_tokens * bindparam("pace", type_=Float)
    since = case((user.c.served_at > waiting.c.since, user.c.served_at), else_=waiting.c.since)
    waits = (
        select(user.c.name, user.c.served_at, user.c.shares, waiting.c.job_id, waiting.c.priority, waiting.c.since)
        .add_columns(
            usage.label("usage"),
            func.sum(usage).over().label("all_usage"),
            func.sum(user.c.shares).over().label("all_shares"),
            seconds_from(since, now).label("age"),
            (user.c.running_shards - user.c.leased_shards).label("room"),
        )
        .join_from(waiting, user)
        .where(waiting.c.model == bindparam("model"), waiting.c.job_id.is_not(None))
        .where(or_(waiting.c.ready_at.is_(None), waiting.c.ready_at <= now))
        .where(or_(user.c.running_shards.is_(None), user.c.running_shards > user.c.leased_shards))
        .subquery("waits")
    )
    part = waits.c.shares / waits.c.all_shares
    used = waits.c.usage / case((waits.c.all_usage > 0, waits.c.all_usage), else_=1.0)
    place = part / (part + used) + waits.c.age / AGE_SECONDS
    order = (waits.c.priority.desc(), place.desc(), waits.c.age.desc(), waits.c.job_id)
    return select(waits).order_by(*order).limit(bindparam("most", type_=Integer))


def age(since: datetime, served_at: datetime | None, now: datetime) -> float:
    """Seconds since a job was submitted or its user was served, whichever was later."""
    return (now - max(since, served_at or since)).total_seconds()


def _turn(row: Any, now: datetime) -> Turn:
    head = Candidate(
        job_id=row.job_id,
        user=row.name,
        tokens=1,
        priority=row.priority,
        age_seconds=age(row.since, row.served_at, now),
    )
    return Turn(head, row.served_at, row.usage, row.shares, row.room)
