"""Whose turn it is: the users for whom shards of a model wait, in the order of :mod:`ndif_batch.scheduling.policy`.

The policy decides among the few who come first; the database finds them, with the same formula, among thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ndif_batch.queue.sets import is_one_of
from ndif_batch.queue.tables import user, waiting
from ndif_batch.scheduling import Candidate, Whole
from ndif_batch.scheduling.policy import AGE_SECONDS

KNOWN = 64
"""So many users who came first are known for a moment, if more wait."""

STALE_SECONDS = 1.0
"""How long that moment is."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's place: ``head`` stands for the first of their jobs; ``room`` is what they may still lease, if limited.

    ``usage`` counts what they have leased; ``place`` is the sum by which the policy orders users of one priority.
    ``busy`` says that another lease serves them at this moment.
    """

    head: Candidate
    served_at: datetime | None
    usage: float
    shares: float
    room: int | None
    place: float
    busy: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """Who came first at a moment, of more than those; ``last`` is the priority and the place of the next one."""

    at: datetime
    names: Sequence[str]
    last: tuple[int, float]
    whole: Whole

    def reaches(self, turn: Turn, now: datetime) -> bool:
        """Whether a turn as it is now comes before all who were not among the first."""
        priority, place = self.last
        return (turn.head.priority, turn.place) > (priority, place + (now - self.at).total_seconds() / AGE_SECONDS)


class Turns:
    """Finds whose turn it is. Threads may share it.

    Among many users it looks at those again who came first a moment ago, as they stand now: only who was not among them
    and has come before them since is seen later, by ``STALE_SECONDS`` at most.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def first(
        self, tx: Transaction, model: str, seconds_per_token: float, limit: int, *, claim: bool = False
    ) -> tuple[list[Turn], Whole]:
        """The first ``limit`` users, and the sums over all that wait.

        With ``claim`` the first of them who is not ``busy`` is kept for this transaction. Nobody waits for a claim;
        SQLite, which admits one lease at a time, needs none.
        """
        asked = {"model": model, "now": tx.now, "pace": seconds_per_token}
        known = self._known.get(model)
        if known is not None and 0 <= (tx.now - known.at).total_seconds() < STALE_SECONDS:
            found, _ = _turns(tx, {**asked, "most": limit}, claim, known)
            if len(found) == limit and known.reaches(found[-1], tx.now):
                return found, known.whole
        found, whole = _turns(tx, {**asked, "most": max(limit, KNOWN) + 1}, claim)
        self._known.pop(model, None)
        if len(found) > KNOWN:
            names = [turn.head.user for turn in found[:KNOWN]]
            last = found[KNOWN]
            self._known[model] = _Known(tx.now, names, (last.head.priority, last.place), whole)
        return found[:limit], whole


def _turns(
    tx: Transaction, asked: Mapping[str, Any], claim: bool, known: _Known | None = None
) -> tuple[list[Turn], Whole]:
    whole = {} if known is None else {"all_usage": known.whole.usage, "all_shares": known.whole.shares}
    names = {} if known is None else {"names": known.names}
    claims = claim and tx.connection.dialect.name == "postgresql"
    query = (claiming_query if claims else turn_query)(known is not None)
    rows = tx.connection.execute(query, {**asked, **names, **whole}).all()
    sums = Whole(rows[0].all_usage, rows[0].all_shares) if rows else Whole(0.0, 0.0)
    return [_turn(row, tx.now, busy=claims and row.claimed is False) for row in rows], sums


@cache
def claiming_query(known: bool = False) -> Select[Any]:
    """:func:`turn_query`, claiming on the way: ``claimed`` is false for who was, true for the first who was not."""
    found = turn_query(known).subquery("found")
    ranked = select(*found.c, func.row_number().over().label("number")).cte("ranked")
    walk = select(cast(0, BigInteger).label("number"), cast(False, Boolean).label("claimed")).cte(
        "walk", recursive=True
    )
    names = func.hashtext(bindparam("model", type_=String)), func.hashtext(ranked.c.name)
    following = select(ranked.c.number, func.pg_try_advisory_xact_lock(*names, type_=Boolean))
    walk = walk.union_all(
        following.join_from(walk, ranked, ranked.c.number == walk.c.number + 1).where(~walk.c.claimed)
    )
    query = select(*ranked.c, walk.c.claimed).outerjoin_from(ranked, walk, walk.c.number == ranked.c.number)
    return query.order_by(ranked.c.number)


@cache
def turn_query(known: bool = False) -> Select[Any]:
    """Reads one small row a user that waits, and no job or shard; if ``known`` only of ``names``, sums given."""
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
    )
    if not known:
        users = each.cte("each")
        totals = select(func.sum(users.c.usage).label("all_usage"), func.sum(users.c.shares).label("all_shares"))
    else:
        users = each.where(is_one_of(user.c.name, "names")).cte("each")
        totals = select(
            *(cast(bindparam(name, type_=Float), Float).label(name) for name in ("all_usage", "all_shares"))
        )
    sums = totals.cte("sums")
    part = users.c.shares / sums.c.all_shares
    used = users.c.usage / case((sums.c.all_usage > 0, sums.c.all_usage), else_=1.0)
    place = (part / (part + used) + users.c.age / AGE_SECONDS).label("place")
    order = (users.c.priority.desc(), place.desc(), users.c.age.desc(), users.c.job_id)
    columns = [column for column in users.c if column is not users.c.age]
    most = bindparam("most", type_=Integer)
    return select(*columns, place, *sums.c).select_from(users.join(sums, true())).order_by(*order).limit(most)


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
    return Turn(head, row.served_at, row.usage, row.shares, row.room, row.place, busy)
