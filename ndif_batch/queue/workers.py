"""The lives of workers: registered, heard from, drained, stopped, lost."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import insert, select, update

from ndif_batch.errors import NotFoundError
from ndif_batch.queue import models
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, WorkerRecord, WorkerState
from ndif_batch.queue.rows import state_in, worker_record
from ndif_batch.queue.tables import ALIVE, worker
from ndif_batch.queue.transitions import move_workers, record

STARTING_TIME = timedelta(minutes=30)
"""How long a worker may load its model before its first sign of life."""


def name(worker_id: int) -> str:
    """A worker as an actor of events."""
    return f"worker {worker_id}"


def register(tx: Transaction, model: str, host: str, pid: int) -> int:
    """A new worker that is about to load ``model``."""
    models.get(tx, model)
    row = {
        "model": model,
        "host": host,
        "pid": pid,
        "state": WorkerState.STARTING,
        "registered_at": tx.now,
        "heartbeat_at": tx.now,
        "alive_until": tx.now + STARTING_TIME,
    }
    worker_id: int = tx.connection.execute(insert(worker).values(row).returning(worker.c.id)).scalar_one()
    record(tx, EventKind.WORKER_REGISTERED, name(worker_id), {"host": host, "pid": pid}, worker_id=worker_id)
    return worker_id


def get(tx: Transaction, worker_id: int) -> WorkerRecord:
    """One worker; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(select(worker).where(worker.c.id == worker_id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no worker {worker_id}")
    return worker_record(row)


def heard(tx: Transaction, worker_id: int, lease_seconds: float, *, ready: bool) -> WorkerState:
    """Note a sign of life; a lost worker runs again, one that is ``ready`` has started."""
    before = get(tx, worker_id).state
    if before is WorkerState.LOST or (ready and before is WorkerState.STARTING):
        move_workers(tx, EventKind.WORKER_RUNNING, worker.c.id == worker_id, actor=name(worker_id))
    alive = {"heartbeat_at": tx.now, "alive_until": tx.now + timedelta(seconds=lease_seconds)}
    seen = update(worker).where(worker.c.id == worker_id).values(alive).returning(worker.c.state)
    return WorkerState(tx.connection.execute(seen).scalar_one())


def drain(tx: Transaction, worker_id: int, actor: str) -> None:
    """Ask a worker to finish what it holds and stop."""
    get(tx, worker_id)
    move_workers(tx, EventKind.WORKER_DRAINING, worker.c.id == worker_id, actor=actor)


def notice_silence(tx: Transaction) -> None:
    """Count workers as lost that were silent for longer than they promised."""
    silent = select(worker.c.id).where(worker.c.alive_until <= tx.now, state_in(worker.c.state, ALIVE))
    ids = tx.connection.scalars(silent).all()
    if ids:
        why = "no heartbeat for longer than its lease"
        move_workers(tx, EventKind.WORKER_LOST, worker.c.id.in_(ids), reason=why)
