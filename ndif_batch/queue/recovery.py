"""Takes shards back from workers that fell silent, stopped or are known to be gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select

from ndif_batch.queue import clocks, jobs, states, tallies, workers
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ShardRecord, ShardState, WorkerState
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.tables import shard, worker
from ndif_batch.queue.transitions import move_shards, move_workers

EXPIRIES = 1000
"""The most leases that one call takes back."""

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


def expire(tx: Transaction) -> None:
    """Take back leases that ran out; it counts against a shard only if its worker fell silent as well."""
    clocks.set_right(tx)
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
    move_workers(tx, EventKind.WORKER_STOPPED, worker.c.id == worker_id, actor=actor)
    back = move_shards(tx, EventKind.SHARD_RETURNED, _LEASED & (shard.c.worker_id == worker_id), actor=actor)
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
