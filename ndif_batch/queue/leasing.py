"""Gives shards to workers, renews their leases, and takes back what ran out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, case, exists, or_, select, update

from ndif_batch.queue import choosing, controls, jobs, states, tallies, users, workers
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, HeartbeatReply, JobState, Lease, ShardRecord, ShardState, WorkerState
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
    *,
    expired: bool = False,
) -> list[Lease] | None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.lease`.

    None if leases have run out: then :func:`expire` must take them back in a transaction of its own, since this one
    locks further shards and jobs. ``expired`` says that this was done.
    """
    heard = workers.heard(tx, worker_id, lease_seconds, ready=True)
    if not expired and _is_any_over(tx):
        return None
    if heard.state is not WorkerState.RUNNING:
        return []
    mine = select(shard.c.id, shard.c.deaths).where(_LEASED, shard.c.worker_id == worker_id)
    deaths = {row.id: row.deaths for row in tx.connection.execute(mine)}
    unheard = [shard_id for shard_id in deaths if held is not None and shard_id not in held]
    if unheard:
        return _again(tx, worker_id, unheard, lease_seconds)
    paused, half_life = controls.of_lease(tx, model)
    if paused or any(states.suspect(count) for count in deaths.values()):
        return []
    wanted = choosing.Wanted(model, max_tokens, max_shards, heard.seconds_per_token, half_life, bool(deaths))
    chosen = choosing.chosen(tx, wanted)
    leases = _take(tx, worker_id, chosen.shards, lease_seconds) if chosen.shards else []
    _serve(tx, model, leases, chosen.moved_on)
    return leases


def heartbeat(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    progress: Mapping[int, int],
    device: DeviceReading | None = None,
) -> HeartbeatReply:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.heartbeat`."""
    heard = workers.heard(tx, worker_id, lease_seconds, ready=False, working=bool(progress), device=device)
    drain = heard.state in (WorkerState.DRAINING, WorkerState.STOPPED)
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
    lost = _read(tx, over.where(worker.c.state == WorkerState.LOST))
    late = [one.id for one in _read(tx, over.where(worker.c.state != WorkerState.LOST))]
    detail = {"reason": "the lease was not renewed"}
    back = move_shards(tx, EventKind.SHARD_EXPIRED, shard.c.id.in_(late), detail=detail) if late else []
    back += _orphan(tx, lost, "no heartbeat for longer than its lease")
    tallies.left(tx, back)


def stop_worker(tx: Transaction, worker_id: int) -> None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.stop_worker`."""
    workers.get(tx, worker_id)
    actor = workers.name(worker_id)
    back = move_shards(tx, EventKind.SHARD_RETURNED, _LEASED & (shard.c.worker_id == worker_id), actor=actor)
    move_workers(tx, EventKind.WORKER_STOPPED, worker.c.id == worker_id, actor=actor)
    tallies.left(tx, back)


def lose_worker(tx: Transaction, worker_id: int, *, died: bool, reason: str, actor: str) -> None:
    """Take back at once what a worker held that is known to be gone; it counts against its shards if it ``died``."""
    workers.get(tx, worker_id)
    if not move_workers(tx, EventKind.WORKER_LOST, worker.c.id == worker_id, actor=actor, reason=reason):
        return
    held = _LEASED & (shard.c.worker_id == worker_id)
    if died:
        locked = select(shard).where(held).order_by(shard.c.id).with_for_update(key_share=True)
        back = _orphan(tx, _read(tx, locked), reason)
    else:
        back = move_shards(tx, EventKind.SHARD_EXPIRED, held, actor=actor, detail={"reason": reason})
    tallies.left(tx, back)


def _take(tx: Transaction, worker_id: int, chosen: Sequence[int], lease_seconds: float) -> list[Lease]:
    actor = workers.name(worker_id)
    values = {"worker_id": worker_id, "lease_until": tx.now + timedelta(seconds=lease_seconds), "tasks_done": 0}
    taken = move_shards(tx, EventKind.SHARD_LEASED, shard.c.id.in_(chosen), actor=actor, values=values)
    tx.connection.execute(update(worker).where(worker.c.id == worker_id).values(worked_at=tx.now))
    job_ids = {one.job_id for one in taken}
    owners = {one.id: one for one in jobs.some(tx, job.c.id.in_(job_ids))}
    new = [one.id for one in owners.values() if one.state is JobState.PENDING]
    if new:
        move_jobs(tx, EventKind.JOB_STARTED, new, actor=actor)
        owners |= {one.id: one for one in jobs.some(tx, job.c.id.in_(new))}
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


def _serve(tx: Transaction, model: str, leases: Iterable[Lease], moved_on: Collection[str]) -> None:
    bills: dict[str, users.Bill] = defaultdict(users.Bill)
    for lease in leases:
        bills[lease.job.user] += users.Bill(1, lease.shard.tasks * lease.job.tokens_per_task)
    users.lock(tx, {*bills, *moved_on})
    users.serve(tx, bills)
    tallies.refresh(tx, model, moved_on)


def _is_any_over(tx: Transaction) -> bool:
    over = exists().where(_LEASED, shard.c.lease_until <= tx.now)
    return bool(tx.connection.scalar(select(or_(exists(workers.silent(tx)), over))))


def _orphan(tx: Transaction, shards: Sequence[ShardRecord], reason: str) -> list[ShardRecord]:
    moved: list[ShardRecord] = []
    for kind in (EventKind.SHARD_ORPHANED, EventKind.SHARD_FAILED):
        ids = [one.id for one in shards if states.orphaned(one.deaths + 1) is kind]
        if not ids:
            continue
        values: dict[str, Any] = {"deaths": shard.c.deaths + 1, "attempts": shard.c.attempts + 1}
        why = {"code": "worker_died", "reason": f"its worker died: {reason}"}
        if kind is EventKind.SHARD_FAILED:
            why["reason"] = f"it killed {states.SUSPECT_DEATHS + 1} workers, the last one alone: {reason}"
            values |= why
        moved += move_shards(tx, kind, shard.c.id.in_(ids), detail=why, values=values)
    jobs.settle(tx, moved)
    return moved


def _read(tx: Transaction, query: Select[tuple[ShardRecord]]) -> list[ShardRecord]:
    return shard_records(tx.connection.execute(query).mappings())
