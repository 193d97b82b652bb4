"""What waits for each model, and how fast its workers have been."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, case, exists, func, select

from ndif_batch.queue.cluster import ModelBacklog
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import ShardState
from ndif_batch.queue.rows import LEASED, state_in
from ndif_batch.queue.tables import LEASABLE, job, shard, worker

MEASURED = timedelta(days=7)
"""How old a worker may be whose speed still counts."""

_WAITS = exists().where(shard.c.job_id == job.c.id, state_in(shard.c.state, [ShardState.PENDING]))


class Waiting(NamedTuple):
    """What of one user waits for one model."""

    user: str
    shards: int
    tasks: int
    tokens: int
    oldest: datetime | None


class Speed(NamedTuple):
    """What recent workers of a model did: tokens a second of work, seconds from start to first lease."""

    worked_at: datetime | None = None
    tokens_per_second: float | None = None
    load_seconds: float | None = None


def of_models(tx: Transaction) -> dict[str, ModelBacklog]:
    """The backlog of each model for which shards wait, in backoff too."""
    leased, speeds = _leased(tx), _speeds(tx)
    found = {}
    for model, rows in groupby(_unfinished(tx), attrgetter("model")):
        waiting = [one for row in rows if _waits(one := _waiting(row, leased[model, row.user]))]
        if waiting:
            found[model] = _backlog(waiting, speeds.get(model, Speed()), tx.now)
    return found


def speed(tx: Transaction, model: str) -> float | None:
    """Tokens that went through a model in a GPU-second of its recent workers; sharing spares tokens, not seconds."""
    ran = func.sum(worker.c.tokens - worker.c.shared_tokens)
    recent = select(ran, func.sum(worker.c.gpu_seconds)).where(
        worker.c.model == model, worker.c.registered_at > tx.now - MEASURED
    )
    tokens, seconds = tx.connection.execute(recent).one()
    return float(tokens) / seconds if tokens and seconds else None


def _waits(one: Waiting) -> bool:
    """Not if it was leased or given back between the two queries: the next look sees it whole."""
    return one.shards > 0 and one.oldest is not None


def _backlog(waiting: Sequence[Waiting], speed: Speed, now: datetime) -> ModelBacklog:
    oldest = min(one.oldest for one in waiting if one.oldest is not None)
    return ModelBacklog(
        tokens={one.user: one.tokens for one in waiting},
        tasks=sum(one.tasks for one in waiting),
        shards=sum(one.shards for one in waiting),
        oldest_seconds=(now - oldest).total_seconds(),
        waited_seconds=(now - max(oldest, speed.worked_at or oldest)).total_seconds(),
        tokens_per_second=speed.tokens_per_second,
        load_seconds=speed.load_seconds,
    )


def _unfinished(tx: Transaction) -> Iterable[Row[Any]]:
    left = job.c.tasks - job.c.tasks_done - job.c.tasks_failed
    sums = _sums(job.c.shards_left, left, left * job.c.tokens_per_task)
    oldest = func.min(case((_WAITS, job.c.submitted_at))).label("oldest")
    query = select(job.c.model, job.c.user, *sums, oldest).where(state_in(job.c.state, LEASABLE))
    return tx.connection.execute(query.group_by(job.c.model, job.c.user).order_by(job.c.model, job.c.user))


def _leased(tx: Transaction) -> defaultdict[tuple[str, str], tuple[int, int, int]]:
    sums = _sums(case((shard.c.id.is_not(None), 1)), shard.c.tasks, shard.c.tasks * job.c.tokens_per_task)
    query = select(job.c.model, job.c.user, *sums).join_from(shard, job)
    rows = tx.connection.execute(query.where(LEASED, state_in(job.c.state, LEASABLE)).group_by(job.c.model, job.c.user))
    found = {(row.model, row.user): (int(row.shards), int(row.tasks), int(row.tokens)) for row in rows}
    return defaultdict(lambda: (0, 0, 0), found)


def _waiting(row: Row[Any], leased: tuple[int, int, int]) -> Waiting:
    shards, tasks, tokens = leased
    return Waiting(row.user, int(row.shards) - shards, int(row.tasks) - tasks, int(row.tokens) - tokens, row.oldest)


def _speeds(tx: Transaction) -> dict[str, Speed]:
    columns = (worker.c.model, worker.c.registered_at, worker.c.ready_at, worker.c.worked_at)
    recent = select(*columns, worker.c.gpu_seconds, worker.c.tokens).where(
        worker.c.ready_at.is_not(None), worker.c.registered_at > tx.now - MEASURED
    )
    rows = tx.connection.execute(recent.order_by(worker.c.model))
    return {name: _speed(list(group)) for name, group in groupby(rows, attrgetter("model"))}


def _speed(workers: Sequence[Any]) -> Speed:
    busy = sum(row.gpu_seconds for row in workers)
    loading = sum((row.ready_at - row.registered_at).total_seconds() for row in workers)
    worked = max((row.worked_at for row in workers if row.worked_at is not None), default=None)
    return Speed(worked, sum(row.tokens for row in workers) / busy if busy else None, loading / len(workers))


def _sums(*columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [func.sum(column).label(name) for name, column in zip(("shards", "tasks", "tokens"), columns, strict=True)]
