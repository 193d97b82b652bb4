"""Gives shards to workers, renews their leases, and takes back what ran out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, case, select, update

from ndif_batch.queue import choosing, controls, jobs, states, users, workers
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, HeartbeatReply, Lease, ShardRecord, ShardState, WorkerState
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.tables import job, shard, worker
from ndif_batch.queue.transitions import move_jobs, move_shards, move_workers

EXPIRIES = 1000
"""The most leases that one call takes back."""

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


def lease(
    tx: Transaction,
    worker_id: int,
    model: str,
    max_tokens: int,
    lease_seconds: float,
    max_shards: int,
    held: Sequence[int] | None,
) -> list[Lease]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.lease`."""
    state = workers.heard(tx, worker_id, lease_seconds, ready=True)
    expire(tx)
    if state is not WorkerState.RUNNING:
        return []
    mine = _read(tx, select(shard).where(_LEASED, shard.c.worker_id == worker_id))
    unheard = [one.id for one in mine if held is not None and one.id not in held]
    if unheard:
        return _again(tx, worker_id, unheard, lease_seconds)
    if controls.is_paused(tx, model) or any(states.suspect(one.deaths) for one in mine):
        return []
    speed = workers.seconds_per_token(tx, worker_id)
    chosen = choosing.chosen(tx, choosing.Wanted(model, max_tokens, max_shards, speed, bool(mine)))
    return _take(tx, worker_id, chosen, lease_seconds) if chosen else []


def heartbeat(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    progress: Mapping[int, int],
    device: DeviceReading | None = None,
) -> HeartbeatReply:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.heartbeat`."""
    state = workers.heard(tx, worker_id, lease_seconds, ready=False, working=bool(progress), device=device)
    drain = state in (WorkerState.DRAINING, WorkerState.STOPPED)
    if not progress:
        return HeartbeatReply(drain=drain)
    done = case(dict(progress), value=shard.c.id)
    within = case((done < 0, 0), (done > shard.c.tasks, shard.c.tasks), else_=done)
    renewed = tx.connection.scalars(
        update(shard)
        .where(shard.c.id.in_(progress), _LEASED, shard.c.worker_id == worker_id)
        .values(lease_until=tx.now + timedelta(seconds=lease_seconds), tasks_done=within)
        .returning(shard.c.id)
    )
    return HeartbeatReply(lost=tuple(sorted(set(progress) - set(renewed))), drain=drain)


def expire(tx: Transaction) -> None:
    """Take back leases that ran out; it counts against a shard only if its worker fell silent as well."""
    workers.notice_silence(tx)
    over = (
        select(shard)
        .join(worker)
        .where(_LEASED, shard.c.lease_until <= tx.now)
        .order_by(shard.c.lease_until)
        .limit(EXPIRIES)
        .with_for_update(of=shard, key_share=True, skip_locked=True)
    )
    _orphan(tx, _read(tx, over.where(worker.c.state == WorkerState.LOST)), "no heartbeat for longer than its lease")
    late = [one.id for one in _read(tx, over.where(worker.c.state != WorkerState.LOST))]
    if late:
        detail = {"reason": "the lease was not renewed"}
        move_shards(tx, EventKind.SHARD_EXPIRED, shard.c.id.in_(late), detail=detail)


def stop_worker(tx: Transaction, worker_id: int) -> None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.stop_worker`."""
    workers.get(tx, worker_id)
    actor = workers.name(worker_id)
    move_shards(tx, EventKind.SHARD_RETURNED, _LEASED & (shard.c.worker_id == worker_id), actor=actor)
    move_workers(tx, EventKind.WORKER_STOPPED, worker.c.id == worker_id, actor=actor)


def lose_worker(tx: Transaction, worker_id: int, *, died: bool, reason: str, actor: str) -> None:
    """Take back at once what a worker held that is known to be gone; it counts against its shards if it ``died``."""
    workers.get(tx, worker_id)
    if not move_workers(tx, EventKind.WORKER_LOST, worker.c.id == worker_id, actor=actor, reason=reason):
        return
    held = _LEASED & (shard.c.worker_id == worker_id)
    if died:
        _orphan(tx, _read(tx, select(shard).where(held).order_by(shard.c.id).with_for_update(key_share=True)), reason)
    else:
        move_shards(tx, EventKind.SHARD_EXPIRED, held, actor=actor, detail={"reason": reason})


def _take(tx: Transaction, worker_id: int, chosen: Sequence[int], lease_seconds: float) -> list[Lease]:
    actor = workers.name(worker_id)
    values = {"worker_id": worker_id, "lease_until": tx.now + timedelta(seconds=lease_seconds), "tasks_done": 0}
    taken = move_shards(tx, EventKind.SHARD_LEASED, shard.c.id.in_(chosen), actor=actor, values=values)
    tx.connection.execute(update(worker).where(worker.c.id == worker_id).values(worked_at=tx.now))
    job_ids = {one.job_id for one in taken}
    move_jobs(tx, EventKind.JOB_STARTED, job_ids, actor=actor)
    owners = {one.id: one for one in jobs.some(tx, job.c.id.in_(job_ids))}
    users.serve(tx, {one.user for one in owners.values()})
    order = {shard_id: place for place, shard_id in enumerate(chosen)}
    return [Lease(one, owners[one.job_id]) for one in sorted(taken, key=lambda one: order[one.id])]


def _again(tx: Transaction, worker_id: int, unheard: Sequence[int], lease_seconds: float) -> list[Lease]:
    """The leases of an answer that was lost on its way, renewed."""
    renewed = (
        update(shard)
        .where(shard.c.id.in_(unheard), _LEASED, shard.c.worker_id == worker_id)
        .values(lease_until=tx.now + timedelta(seconds=lease_seconds))
        .returning(shard)
    )
    found = shard_records(tx.connection.execute(renewed).mappings())
    owners = {one.id: one for one in jobs.some(tx, job.c.id.in_({one.job_id for one in found}))}
    return [Lease(one, owners[one.job_id]) for one in sorted(found, key=lambda one: one.id)]


def _orphan(tx: Transaction, shards: Sequence[ShardRecord], reason: str) -> None:
    for kind in (EventKind.SHARD_ORPHANED, EventKind.SHARD_FAILED):
        ids = [one.id for one in shards if states.orphaned(one.deaths + 1) is kind]
        if not ids:
            continue
        values: dict[str, Any] = {"deaths": shard.c.deaths + 1, "attempts": shard.c.attempts + 1}
        why = {"code": "worker_died", "reason": f"its worker died: {reason}"}
        if kind is EventKind.SHARD_FAILED:
            why["reason"] = f"it killed {states.SUSPECT_DEATHS + 1} workers, the last one alone: {reason}"
            values |= why
        jobs.settle(tx, move_shards(tx, kind, shard.c.id.in_(ids), detail=why, values=values))


def _read(tx: Transaction, query: Select[tuple[ShardRecord]]) -> list[ShardRecord]:
    return shard_records(tx.connection.execute(query).mappings())
