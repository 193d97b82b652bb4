"""Applies a transition of the state machine: the guarded change of state, and the event that tells of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, and_, func, insert, literal, select, update

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobState, ShardRecord, ShardState, WorkerState
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.states import JOB, SHARD, WORKER
from ndif_batch.queue.tables import event, job, shard, worker

SYSTEM = "queue"
"""The actor of what the queue does by itself."""

_UNLEASED: Mapping[str, Any] = {"worker_id": None, "lease_until": None}
_UNTRIED: Mapping[str, Any] = {**_UNLEASED, "tasks_done": 0, "tasks_failed": 0, "ready_at": None}
SHARD_VALUES: Mapping[ShardState, Mapping[str, Any]] = {
    ShardState.PENDING: {**_UNTRIED, "code": None, "reason": None},
    ShardState.LEASED: {"ready_at": None, "epoch": shard.c.epoch + 1},
    ShardState.DONE: _UNLEASED,
    ShardState.FAILED: {**_UNLEASED, "tasks_done": 0, "tasks_failed": shard.c.tasks},
    ShardState.CANCELLED: _UNTRIED,
}
"""What a shard's row must hold besides its new state."""


def move_shards(
    tx: Transaction,
    kind: EventKind,
    where: ColumnElement[bool],
    *,
    actor: str = SYSTEM,
    detail: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> list[ShardRecord]:
    """Move those shards of ``where`` that may make the transition ``kind``; they as they are afterwards."""
    target = SHARD[kind].targets[0]
    changed = {**SHARD_VALUES[target], **(values or {})}
    holder = changed["worker_id"] if target is ShardState.LEASED else shard.c.worker_id
    subject = {"job_id": shard.c.job_id, "shard_id": shard.c.id, "worker_id": holder}
    guarded = and_(where, state_in(shard.c.state, SHARD[kind].sources))
    return shard_records(_move(tx, shard, kind, guarded, subject, actor, detail, {"state": target, **changed}))


def move_jobs(
    tx: Transaction,
    kind: EventKind,
    job_ids: Collection[int],
    *,
    target: JobState | None = None,
    actor: str = SYSTEM,
    reason: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> list[int]:
    """Move those jobs that may make the transition ``kind`` to ``target`` (needed if it has several); their ids."""
    chosen = JOB[kind].targets[0] if target is None else target
    assert chosen in JOB[kind].targets
    started = None if chosen is JobState.PENDING else job.c.started_at
    changed = {
        "state": chosen,
        "started_at": func.coalesce(started, tx.now) if chosen is JobState.RUNNING else started,
        "finished_at": tx.now if chosen.final else None,
        "reason": reason if chosen.final else None,
        "awaiting": False,
        **(values or {}),
    }
    detail = {"state": chosen} | ({} if reason is None else {"reason": reason})
    guarded = and_(job.c.id.in_(job_ids), state_in(job.c.state, JOB[kind].sources))
    moved = [row["id"] for row in _move(tx, job, kind, guarded, {"job_id": job.c.id}, actor, detail, changed)]
    if chosen.final:
        tx.ended.extend(moved)
    return moved


def move_workers(
    tx: Transaction, kind: EventKind, where: ColumnElement[bool], *, actor: str = SYSTEM, reason: str | None = None
) -> list[int]:
    """Move those workers of ``where`` that may make the transition ``kind``; their ids."""
    target = WORKER[kind].targets[0]
    ended = target in (WorkerState.STOPPED, WorkerState.LOST)
    changed = {"state": target, "stopped_at": tx.now if ended else None, "reason": reason}
    detail = {} if reason is None else {"reason": reason}
    guarded = and_(where, state_in(worker.c.state, WORKER[kind].sources))
    return [row["id"] for row in _move(tx, worker, kind, guarded, {"worker_id": worker.c.id}, actor, detail, changed)]


def record(tx: Transaction, kind: EventKind, actor: str, detail: Mapping[str, Any] | None = None, **ids: int) -> None:
    """Append an event that is no transition. ``ids`` are ``job_id`` or ``worker_id``."""
    told = _because(tx, detail)
    tx.connection.execute(insert(event).values(at=tx.now, kind=kind, actor=actor, detail=told, **ids))


def _because(tx: Transaction, detail: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an event tells, with the reason that its author gave."""
    return dict(detail or {}) | ({} if tx.why is None else {"reason": tx.why})


def _move(
    tx: Transaction,
    table: Table,
    kind: EventKind,
    where: ColumnElement[bool],
    subject: Mapping[str, Any],
    actor: str,
    detail: Mapping[str, Any] | None,
    values: Mapping[str, Any],
) -> list[RowMapping]:
    locking = select(table.c.id).where(where).order_by(table.c.id).with_for_update(key_share=True)
    if not tx.connection.execute(locking).all():
        return []
    told = {"at": tx.now, "kind": kind, "actor": actor, "detail": _because(tx, detail), **subject}
    columns = [v if isinstance(v, ColumnElement) else literal(v, event.c[name].type) for name, v in told.items()]
    tx.connection.execute(insert(event).from_select(list(told), select(*columns).where(where)))
    return list(tx.connection.execute(update(table).where(where).values(values).returning(table)).mappings())
