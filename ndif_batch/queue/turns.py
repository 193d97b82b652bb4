"""Whose turn it is: the users for whom shards of a model wait, in the order of :mod:`ndif_batch.scheduling.policy`.

The policy decides among the few who come first; the database finds them, with the same formula, among thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    Integer,
    Select,
    String,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    true,
)

from ndif_batch.queue import billing
from ndif_batch.queue.columns import Instant, seconds_from
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.tables import user, waiting
from ndif_batch.scheduling import Candidate, Whole
from ndif_batch.scheduling.policy import AGE_SECONDS


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's place: ``head`` stands for the first of their jobs; ``room`` is what they may still lease, if limited.

    ``usage`` counts what they have leased. ``busy`` says that another lease serves them at this moment.
    """

    head: Candidate
    served_at: datetime | None
    usage: float
    shares: float
    room: int | None
    busy: bool = False


def first(
    tx: Transaction, model: str, seconds_per_token: float, limit: int, *, claim: bool = False
) -> tuple[list[Turn], Whole]:
    """The first ``limit`` users, and the sums over all that wait.

    With ``claim`` the first of them who is not ``busy`` is kept for this lease. Nobody ever waits for a claim; SQLite,
    which admits one lease at a time, needs none.
    """
    asked = {"model": model, "now": tx.now, "pace": seconds_per_token, "most": limit}
    claims = claim and tx.connection.dialect.name == "postgresql"
    rows = tx.connection.execute(claiming_query() if claims else turn_query(), asked).all()
    whole = Whole(rows[0].all_usage, rows[0].all_shares) if rows else Whole(0.0, 0.0)
    return [_turn(row, tx.now, busy=claims and row.claimed is False) for row in rows], whole


@cache
def claiming_query() -> Select[Any]:
    """:func:`turn_query`, claiming on the way: ``claimed`` is false for who was, true for the first who was not."""
    found = turn_query().subquery("found")
    ranked = select(*found.c, func.row_number().over().label("place")).cte("ranked")
    walk = select(cast(0, BigInteger).label("place"), cast(False, Boolean).label("claimed")).cte("walk", recursive=True)
    names = func.hashtext(bindparam("model", type_=String)), func.hashtext(ranked.c.name)
    following = select(ranked.c.place, func.pg_try_advisory_xact_lock(*names, type_=Boolean))
    walk = walk.union_all(following.join_from(walk, ranked, ranked.c.place == walk.c.place + 1).where(~walk.c.claimed))
    query = select(*ranked.c, walk.c.claimed).outerjoin_from(ranked, walk, walk.c.place == ranked.c.place)
    return query.order_by(ranked.c.place)


@cache
def turn_query() -> Select[Any]:
    """Reads one small row a user that waits, and no job or shard."""
    now = bindparam("now", type_=Instant)
    usage = billing.still_used() + user.c.leased_tokens * bindparam("pace", type_=Float)
    since = case((user.c.served_at > waiting.c.since, user.c.served_at), else_=waiting.c.since)
    each = (
        select(user.c.name, user.c.served_at, user.c.shares, waiting.c.job_id, waiting.c.priority, waiting.c.since)
        .add_columns(
            usage.label("usage"),
            seconds_from(since, now).label("age"),
            (user.c.running_shards - user.c.leased_shards).label("room"),
        )
        .join_from(waiting, user)
        .where(waiting.c.model == bindparam("model"), waiting.c.job_id.is_not(None))
        .where(or_(waiting.c.ready_at.is_(None), waiting.c.ready_at <= now))
        .where(or_(user.c.running_shards.is_(None), user.c.running_shards > user.c.leased_shards))
        .cte("each")
    )
    sums = select(func.sum(each.c.usage).label("all_usage"), func.sum(each.c.shares).label("all_shares")).cte("sums")
    part = each.c.shares / sums.c.all_shares
    used = each.c.usage / case((sums.c.all_usage > 0, sums.c.all_usage), else_=1.0)
    place = part / (part + used) + each.c.age / AGE_SECONDS
    order = (each.c.priority.desc(), place.desc(), each.c.age.desc(), each.c.job_id)
    most = bindparam("most", type_=Integer)
    return select(*each.c, *sums.c).select_from(each.join(sums, true())).order_by(*order).limit(most)


def age(since: datetime, served_at: datetime | None, now: datetime) -> float:
    """Seconds since a job was submitted or its user was served, whichever was later."""
    return (now - max(since, served_at or since)).total_seconds()


def _turn(row: Any, now: datetime, *, busy: bool) -> Turn:
    head = Candidate(
        job_id=row.job_id,
        user=row.name,
        tokens=1,
        priority=row.priority,
        age_seconds=age(row.since, row.served_at, now),
    )
    return Turn(head, row.served_at, row.usage, row.shares, row.room, busy)
