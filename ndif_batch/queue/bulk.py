"""What workers do to many shards at once, all the time: take them, and end them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Insert, Integer, String, Update, bindparam, func, insert, select, update

from ndif_batch.queue import workers
from ndif_batch.queue.columns import Instant
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobState, ShardRecord, ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.sets import asked, given, is_one_of, locked
from ndif_batch.queue.states import JOB, SHARD
from ndif_batch.queue.tables import event, job, shard
from ndif_batch.queue.transitions import SHARD_VALUES

_TAKEN = ("id", "job_id", "index", "first_task", "tasks", "epoch", "attempts", "deaths")


def start(tx: Transaction, job_ids: Collection[int]) -> set[int]:
    """Let those of the jobs run that are pending, and lock them; :func:`take` tells of it."""
    if not job_ids:
        return set()
    return set(tx.connection.execute(_starting(), {"ids": job_ids, "moment": tx.now}).scalars().all())


def take(
    tx: Transaction, rows: Sequence[Any], started: Iterable[int], worker_id: int, until: datetime
) -> list[ShardRecord]:
    """Lease waiting shards, of which ``rows`` have the ids and which this transaction has locked."""
    if not rows:
        return []
    fixed: Mapping[str, Any] = {
        "state": ShardState.LEASED,
        "worker_id": worker_id,
        "lease_until": until,
        "tasks_done": 0,
        "tasks_failed": 0,
    }
    ids = [row.id for row in rows]
    found = tx.connection.execute(_taking(), {"ids": ids, "holder": worker_id, "until": until}).all()
    taken = [ShardRecord(**dict(zip(_TAKEN, row, strict=True)), **fixed) for row in found]
    told = [_event(EventKind.SHARD_LEASED, worker_id, one.job_id, one.id, {}) for one in taken]
    running = {"state": JobState.RUNNING}
    told += [_event(EventKind.JOB_STARTED, worker_id, job_id, None, running) for job_id in started]
    _tell(tx, told)
    return taken


def finish(tx: Transaction, held: Sequence[Any], failed: Mapping[int, int]) -> set[int]:
    """End the shards ``held``, of whose tasks so many ``failed``; ids of those that are still as they were read.

    Rows of ``held`` have the names of a :class:`ShardRecord`.
    """
    if not held:
        return set()
    form, rows = asked(
        tx, [{"id": one.id, "worker": one.worker_id, "epoch": one.epoch, "failed": failed[one.id]} for one in held]
    )
    moved = set(tx.connection.execute(_finishing(form), rows).scalars().all())
    told = []
    for one in held:
        if one.id in moved:
            counts = {"tasks_done": one.tasks - failed[one.id], "tasks_failed": failed[one.id]}
            told.append(_event(EventKind.SHARD_DONE, one.worker_id, one.job_id, one.id, counts))
    _tell(tx, told)
    return moved


def _event(
    kind: EventKind, worker_id: int, job_id: int, shard_id: int | None, detail: Mapping[str, Any]
) -> dict[str, Any]:
    holder = None if shard_id is None else worker_id
    actor = workers.name(worker_id)
    return {"kind": kind, "actor": actor, "job": job_id, "shard": shard_id, "worker": holder, "detail": detail}


def _tell(tx: Transaction, events: Sequence[Mapping[str, Any]]) -> None:
    if events:
        form, rows = asked(tx, events)
        tx.connection.execute(_telling(form), {"moment": tx.now, **rows})


@cache
def _starting() -> Update:
    waits = is_one_of(job.c.id) & state_in(job.c.state, JOB[EventKind.JOB_STARTED].sources)
    locked = select(job.c.id).where(waits).order_by(job.c.id).with_for_update(key_share=True).cte("locked")
    now = func.coalesce(job.c.started_at, bindparam("moment", type_=Instant))
    moved = update(job).where(job.c.id == locked.c.id).values(state=JobState.RUNNING, started_at=now)
    return moved.returning(job.c.id)


@cache
def _taking() -> Update:
    values = {
        **SHARD_VALUES[ShardState.LEASED],
        "state": ShardState.LEASED,
        "worker_id": bindparam("holder", type_=BigInteger),
        "lease_until": bindparam("until", type_=Instant),
        "tasks_done": 0,
    }
    guarded = is_one_of(shard.c.id), state_in(shard.c.state, SHARD[EventKind.SHARD_LEASED].sources)
    return update(shard).where(*guarded).values(values).returning(*(shard.c[name] for name in _TAKEN))


@cache
def _finishing(form: str) -> Update:
    """A shard that a worker holds is leased by the table's rule; said so, an index of the leased would be chosen."""
    rows = given(form, id=BigInteger(), worker=BigInteger(), epoch=Integer(), failed=Integer())
    its_own = (shard.c.worker_id == rows.c.worker, shard.c.epoch == rows.c.epoch)
    ended = locked(shard, rows, shard.c.id == rows.c.id, *its_own)
    values = {
        **SHARD_VALUES[ShardState.DONE],
        "state": ShardState.DONE,
        "tasks_done": shard.c.tasks - ended.c.failed,
        "tasks_failed": ended.c.failed,
    }
    return update(shard).where(shard.c.id == ended.c.key).values(values).returning(shard.c.id)


@cache
def _telling(form: str) -> Insert:
    ids = {name: BigInteger() for name in ("job", "shard", "worker")}
    rows = given(form, **ids, kind=String(), actor=String(), detail=JSON())
    told = {
        "at": bindparam("moment", type_=Instant),
        "kind": rows.c.kind,
        "actor": rows.c.actor,
        "detail": rows.c.detail,
        "job_id": rows.c.job,
        "shard_id": rows.c.shard,
        "worker_id": rows.c.worker,
    }
    return insert(event).from_select(list(told), select(*told.values()))
