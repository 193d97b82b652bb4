"""The lives of workers: registered, heard from, drained, stopped, lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select, update

from ndif_batch.errors import NotFoundError
from ndif_batch.queue import models, pilots
from ndif_batch.queue.cluster import Cost, DeviceReading
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, WorkerRecord, WorkerState
from ndif_batch.queue.rows import state_in, worker_record
from ndif_batch.queue.tables import ALIVE, worker
from ndif_batch.queue.transitions import move_workers, record


@dataclass(frozen=True, slots=True)
class Heard:
    """A worker that has just spoken; what a token has taken it on average, 0 before it has ended a shard."""

    state: WorkerState
    seconds_per_token: float


STARTING_TIME = timedelta(minutes=30)
"""How long a worker may load its model before its first sign of life."""


def name(worker_id: int) -> str:
    """A worker as an actor of events."""
    return f"worker {worker_id}"


def register(tx: Transaction, model: str, host: str, pid: int, pilot: str | None, key: str | None) -> int:
    """A new worker that is about to load ``model``, inside the pilot of that name if given; or the one of ``key``."""
    models.get(tx, model)
    row = {
        "model": model,
        "host": host,
        "pid": pid,
        "state": WorkerState.STARTING,
        "registered_at": tx.now,
        "heartbeat_at": tx.now,
        "alive_until": tx.now + STARTING_TIME,
        "key": key,
    }
    worker_id = tx.insert_new(worker, row)
    if worker_id is None:
        known: int = tx.connection.execute(select(worker.c.id).where(worker.c.key == key)).scalar_one()
        return known
    record(tx, EventKind.WORKER_REGISTERED, name(worker_id), {"host": host, "pid": pid}, worker_id=worker_id)
    if pilot is not None:
        pilots.boarded(tx, pilot, worker_id, name(worker_id))
    return worker_id


def get(tx: Transaction, worker_id: int) -> WorkerRecord:
    """One worker; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(select(worker).where(worker.c.id == worker_id)).mappings().one_or_none()
    if row is None:
        raise unknown(worker_id)
    return worker_record(row)


def unknown(worker_id: int) -> NotFoundError:
    """The error for a worker that does not exist."""
    return NotFoundError(f"there is no worker {worker_id}")


def heard(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    *,
    ready: bool,
    working: bool = False,
    device: DeviceReading | None = None,
) -> Heard:
    """Note a sign of life; a lost worker runs again, one that is ``ready`` has started."""
    alive: dict[str, Any] = {"heartbeat_at": tx.now, "alive_until": tx.now + timedelta(seconds=lease_seconds)}
    if ready:
        alive["ready_at"] = func.coalesce(worker.c.ready_at, tx.now)
    if working:
        alive["worked_at"] = tx.now
    if device is not None:
        alive |= _read(device)
    columns = (worker.c.state, worker.c.gpu_seconds, worker.c.tokens)
    seen = update(worker).where(worker.c.id == worker_id).values(alive).returning(*columns)
    row = tx.connection.execute(seen).one_or_none()
    if row is None:
        raise unknown(worker_id)
    state = WorkerState(row.state)
    if state is WorkerState.LOST or (ready and state is WorkerState.STARTING):
        move_workers(tx, EventKind.WORKER_RUNNING, worker.c.id == worker_id, actor=name(worker_id))
        state = WorkerState.RUNNING
    return Heard(state, row.gpu_seconds / row.tokens if row.tokens else 0.0)


def lock(tx: Transaction, ids: Select[tuple[int]]) -> None:
    """Lock the workers that ``ids`` finds, in order."""
    query = select(worker.c.id).where(worker.c.id.in_(ids)).order_by(worker.c.id)
    tx.connection.execute(query.with_for_update(key_share=True))


def count(tx: Transaction, worker_id: int, cost: Cost) -> None:
    """Add what its shards took to what the worker has done."""
    sums = {"gpu_seconds": worker.c.gpu_seconds + cost.gpu_seconds, "tokens": worker.c.tokens + cost.tokens}
    tx.connection.execute(update(worker).where(worker.c.id == worker_id).values(**sums, worked_at=tx.now))


def drain(tx: Transaction, worker_id: int, actor: str) -> None:
    """Ask a worker to finish what it holds and stop."""
    get(tx, worker_id)
    move_workers(tx, EventKind.WORKER_DRAINING, worker.c.id == worker_id, actor=actor)


def silent(tx: Transaction) -> Select[tuple[int]]:
    """Workers that were silent for longer than they promised."""
    return select(worker.c.id).where(worker.c.alive_until <= tx.now, state_in(worker.c.state, ALIVE))


def notice_silence(tx: Transaction) -> None:
    """Count silent workers as lost."""
    ids = tx.connection.scalars(silent(tx)).all()
    if ids:
        why = "no heartbeat for longer than its lease"
        move_workers(tx, EventKind.WORKER_LOST, worker.c.id.in_(ids), reason=why)


def _read(device: DeviceReading) -> Mapping[str, Any]:
    return {
        "device": device.name,
        "memory_used": device.memory_used,
        "memory_total": device.memory_total,
        "utilization": device.utilization,
    }
