"""Which shards a worker gets next: whose turn it is by the policy of :mod:`ndif_batch.scheduling`, and what is free."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, exists, func, or_, select

from ndif_batch.queue import controls, states, users
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import LEASABLE, job, shard, user
from ndif_batch.scheduling import Candidate, choose


@dataclass(frozen=True, slots=True)
class Turn:
    """A user for whom shards of a model wait: the head of their jobs, and the shards they may still lease."""

    head: Candidate
    served_at: datetime | None
    room: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker asks for; ``seconds_per_token`` is measured, 0 if unknown; ``holding`` means that it has work."""

    model: str
    max_tokens: int
    max_shards: int
    seconds_per_token: float
    holding: bool


def chosen(tx: Transaction, wanted: Wanted) -> list[int]:
    """Ids of the shards to lease, locked. Users are looked at only as far as the policy reaches them."""
    turns, usage, shares = _turns(tx, wanted)
    looked: dict[Candidate, list[int]] = {}
    step = 1
    while True:
        choices = choose(
            [*(turn.head for turn in turns.values()), *looked],
            usage,
            shares,
            wanted.max_tokens,
            max_shards=wanted.max_shards,
            holding=wanted.holding,
        )
        reached = list(dict.fromkeys(choice.candidate.user for choice in choices if choice.candidate not in looked))
        if not reached:
            return [shard_id for choice in choices for shard_id in looked[choice.candidate][: choice.shards]]
        for name in reached[:step]:
            looked |= _look(tx, wanted, name, turns.pop(name))
        step *= 2


def turn_query(model: str, now: datetime) -> Select[Any]:
    """Each user with shards of ``model`` that wait, and the first such job; a probe of two indexes a user."""
    other = job.alias("other")
    waits = exists().where(shard.c.job_id == other.c.id, *_ready(now))
    head = (
        select(other.c.id)
        .where(other.c.model == model, other.c.user == user.c.name, state_in(other.c.state, LEASABLE), waits)
        .order_by(other.c.priority.desc(), other.c.id)
        .limit(1)
        .correlate(user)
        .scalar_subquery()
    )
    return select(user, job.c.id, job.c.priority, job.c.submitted_at).join_from(user, job, job.c.id == head)


def shard_query(model: str, name: str, now: datetime, limit: int) -> Select[Any]:
    """The first ``limit`` shards of a user's jobs that wait; walks two indexes, sorts nothing, locks what it finds."""
    return (
        select(shard.c.id, shard.c.tasks, shard.c.deaths, shard.c.job_id)
        .add_columns(job.c.tokens_per_task, job.c.priority, job.c.submitted_at)
        .join_from(shard, job)
        .where(job.c.model == model, job.c.user == name, state_in(job.c.state, LEASABLE), *_ready(now))
        .order_by(job.c.priority.desc(), job.c.id, shard.c.index)
        .limit(limit)
        .with_for_update(of=shard, key_share=True, skip_locked=True)
    )


def leased_query() -> Select[Any]:
    """Shards and tokens that each user has leased."""
    tokens = func.sum(shard.c.tasks * job.c.tokens_per_task).label("tokens")
    leased = state_in(shard.c.state, [ShardState.LEASED])
    return (
        select(job.c.user, func.count().label("shards"), tokens)
        .join_from(shard, job)
        .where(leased)
        .group_by(job.c.user)
    )


def _turns(tx: Transaction, wanted: Wanted) -> tuple[dict[str, Turn], dict[str, float], dict[str, float]]:
    """The turns, the decayed usage and the shares of each user for whom shards wait and who may lease more."""
    leased = {row.user: (row.shards, int(row.tokens)) for row in tx.connection.execute(leased_query())}
    half_life = controls.half_life_hours(tx)
    turns, usage, shares = {}, {}, {}
    for row in tx.connection.execute(turn_query(wanted.model, tx.now)):
        shards, tokens = leased.get(row.name, (0, 0))
        room = wanted.max_shards if row.running_shards is None else row.running_shards - shards
        usage[row.name] = users.still_used(row.used, row.used_at, tx.now, half_life) + tokens * wanted.seconds_per_token
        shares[row.name] = row.shares
        if room > 0:
            turns[row.name] = Turn(_candidate(row, row.name, row.id, row.served_at, tx.now), row.served_at, room)
    return turns, usage, shares


def _look(tx: Transaction, wanted: Wanted, name: str, turn: Turn) -> dict[Candidate, list[int]]:
    """What of a user's shards can be had: candidates of equal shards, each with the ids."""
    found: dict[tuple[int, int, bool], list[Row[Any]]] = {}
    query = shard_query(wanted.model, name, tx.now, min(wanted.max_shards, turn.room))
    for row in tx.connection.execute(query).all():
        tokens = row.tasks * row.tokens_per_task
        found.setdefault((row.job_id, tokens, states.suspect(row.deaths)), []).append(row)
    return {
        _candidate(rows[0], name, job_id, turn.served_at, tx.now, tokens=tokens, shards=len(rows), alone=alone): [
            row.id for row in rows
        ]
        for (job_id, tokens, alone), rows in found.items()
    }


def _candidate(
    row: Row[Any],
    name: str,
    job_id: int,
    served_at: datetime | None,
    now: datetime,
    *,
    tokens: int = 1,
    shards: int = 1,
    alone: bool = False,
) -> Candidate:
    since = max(row.submitted_at, served_at or row.submitted_at)
    return Candidate(
        job_id=job_id,
        user=name,
        tokens=tokens,
        shards=shards,
        priority=row.priority,
        age_seconds=(now - since).total_seconds(),
        alone=alone,
    )


def _ready(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return state_in(shard.c.state, [ShardState.PENDING]), or_(shard.c.ready_at.is_(None), shard.c.ready_at <= now)
