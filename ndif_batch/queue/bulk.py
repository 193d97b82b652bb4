"""What workers do to many shards at once, all the time: take them, and end them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Insert,
    Integer,
    Row,
    String,
    Update,
    bindparam,
    cast,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from ndif_batch.queue import workers
from ndif_batch.queue.columns import Instant
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobState, ShardRecord, ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.sets import Form, asked, given, is_one_of
from ndif_batch.queue.states import JOB, SHARD
from ndif_batch.queue.tables import event, job, shard
from ndif_batch.queue.together import Write
from ndif_batch.queue.transitions import SHARD_VALUES


def start(tx: Transaction, job_ids: Collection[int]) -> set[int]:
    """Let those of the jobs run that are pending, and lock them; :func:`taking` tells of it."""
    if not job_ids:
        return set()
    return set(tx.connection.execute(_starting(), {"ids": job_ids, "now": tx.now}).scalars().all())


def taking(
    tx: Transaction, ids: Collection[int], started: Collection[int], worker_id: int, until: datetime
) -> list[Write]:
    """Lease these shards, which wait and are locked, and tell of it and of the jobs that have ``started``."""
    form, actor = Form(tx.connection.dialect.name, len(ids) == 1), workers.name(worker_id)
    its_own = {"ids": ids, "holder": worker_id}
    told = its_own | {"started": started, "actor": actor, "now": tx.now}
    return [Write(_taking, form, its_own | {"lease_until": until}), Write(_telling_leased, form, told)]


def taken(row: Row[Any], worker_id: int, until: datetime) -> ShardRecord:
    """A shard that is leased now, from a row of :mod:`ndif_batch.queue.free`, which locked it."""
    return ShardRecord(
        id=row.id,
        job_id=row.job_id,
        index=row._mapping["index"],
        first_task=row.first_task,
        tasks=row.tasks,
        state=ShardState.LEASED,
        epoch=row.epoch + 1,
        attempts=row.attempts,
        worker_id=worker_id,
        lease_until=until,
        tasks_done=0,
        tasks_failed=0,
        deaths=row.deaths,
    )


def ending(tx: Transaction, ended: Collection[tuple[Row[Any], int]]) -> list[Write]:
    """End leased shards, which are locked: rows named as a :class:`ShardRecord`, each with its failed tasks."""
    shards = [{"id": row.id, "failed": failed} for row, failed in ended]
    events = [
        {
            "job": row.job_id,
            "shard": row.id,
            "worker": row.worker_id,
            "actor": workers.name(row.worker_id),
            "detail": {"tasks_done": row.tasks - failed, "tasks_failed": failed},
        }
        for row, failed in ended
    ]
    form, rows = asked(tx, "ended", shards)
    _, told = asked(tx, "told", events)
    return [Write(_ending, form, rows), Write(_telling_done, form, {"now": tx.now, **told})]


@cache
def _starting() -> Update:
    waits = is_one_of(job.c.id) & state_in(job.c.state, JOB[EventKind.JOB_STARTED].sources)
    locked = select(job.c.id).where(waits).order_by(job.c.id).with_for_update(key_share=True).cte("locked")
    now = func.coalesce(job.c.started_at, bindparam("now", type_=Instant))
    moved = update(job).where(job.c.id == locked.c.id).values(state=JobState.RUNNING, started_at=now)
    return moved.returning(job.c.id)


def _taking(form: Form, turn: ColumnElement[bool]) -> Update:
    values = {
        **SHARD_VALUES[ShardState.LEASED],
        "state": ShardState.LEASED,
        "worker_id": bindparam("holder", type_=BigInteger),
        "lease_until": bindparam("lease_until", type_=Instant),
        "tasks_done": 0,
    }
    guarded = is_one_of(shard.c.id), state_in(shard.c.state, SHARD[EventKind.SHARD_LEASED].sources)
    return update(shard).where(*guarded, turn).values(values)


def _telling_leased(form: Form, turn: ColumnElement[bool]) -> Insert:
    holder, actor = bindparam("holder", type_=BigInteger), bindparam("actor", type_=String)
    nothing, running = (literal(detail, event.c.detail.type) for detail in ({}, {"state": JobState.RUNNING}))
    leased = _told(EventKind.SHARD_LEASED, actor, shard.c.job_id, shard.c.id, holder, nothing)
    began = _told(EventKind.JOB_STARTED, actor, job.c.id, cast(None, BigInteger), cast(None, BigInteger), running)
    every = union_all(
        select(*leased.values()).where(is_one_of(shard.c.id), turn),
        select(*began.values()).where(is_one_of(job.c.id, "started"), turn),
    )
    return insert(event).from_select(list(leased), every)


def _ending(form: Form, turn: ColumnElement[bool]) -> Update:
    rows = given(form, "ended", id=BigInteger(), failed=Integer())
    values = {
        **SHARD_VALUES[ShardState.DONE],
        "state": ShardState.DONE,
        "tasks_done": shard.c.tasks - rows.c.failed,
        "tasks_failed": rows.c.failed,
    }
    return update(shard).where(shard.c.id == rows.c.id, turn).values(values)


def _telling_done(form: Form, turn: ColumnElement[bool]) -> Insert:
    ids = {name: BigInteger() for name in ("job", "shard", "worker")}
    rows = given(form, "told", **ids, actor=String(), detail=JSON())
    told = _told(EventKind.SHARD_DONE, rows.c.actor, rows.c.job, rows.c.shard, rows.c.worker, rows.c.detail)
    return insert(event).from_select(list(told), select(*told.values()).where(turn))


def _told(
    kind: EventKind,
    actor: ColumnElement[str],
    job_id: ColumnElement[int],
    shard_id: ColumnElement[int],
    worker_id: ColumnElement[int],
    detail: ColumnElement[Any],
) -> dict[str, ColumnElement[Any]]:
    return {
        "at": bindparam("now", type_=Instant),
        "kind": literal(kind, event.c.kind.type),
        "actor": actor,
        "job_id": job_id,
        "shard_id": shard_id,
        "worker_id": worker_id,
        "detail": detail,
    }
