"""The lives of workers: registered, heard from, drained, stopped, lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Select,
    Update,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from ndif_batch.errors import NotFoundError
from ndif_batch.queue import controls, models, pilots
from ndif_batch.queue.cluster import FREE, Cost, DeviceReading
from ndif_batch.queue.columns import Instant
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ShardState, WorkerRecord, WorkerState
from ndif_batch.queue.rows import state_in, worker_record
from ndif_batch.queue.sets import Form, asked, given, locked
from ndif_batch.queue.tables import ALIVE, shard, worker
from ndif_batch.queue.together import Build, Write, carry_out
from ndif_batch.queue.transitions import move_workers, record


@dataclass(frozen=True, slots=True)
class Asking:
    """A worker that asks for shards; what a token has taken it on average, 0 before it has ended a shard.

    ``paused`` says that nothing of its model may be leased, ``over`` that a lease has run out or another worker is
    silent. ``deaths`` are those of each shard that it holds.
    """

    state: WorkerState
    seconds_per_token: float
    paused: bool
    over: bool
    deaths: Mapping[int, int]


_DEVICE = ("device", "memory_used", "memory_total", "utilization")

CALLED = "worker "
STARTING_TIME = timedelta(minutes=30)
"""How long a worker may load its model before its first sign of life."""


def name(worker_id: int) -> str:
    """A worker as an actor of events."""
    return f"{CALLED}{worker_id}"


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


def asking(tx: Transaction, worker_id: int, model: str) -> Asking:
    """Lock a worker that is ready to work, whether it was lost or has just started, and see what bears on its lease."""
    rows = tx.connection.execute(_asking(), {"who": worker_id, "model": model, "now": tx.now}).all()
    if not rows:
        raise unknown(worker_id)
    state = _running(tx, worker_id, rows[0].state, (WorkerState.LOST, WorkerState.STARTING))
    spent = rows[0].gpu_seconds / rows[0].tokens if rows[0].tokens else 0.0
    return Asking(state, spent, rows[0].paused, bool(rows[0].over), {row.id: row.deaths for row in rows if row.id})


@cache
def _asking() -> Select[Any]:
    """A row for each shard that the worker holds, or one.

    The first lease to run out and the first worker to fall silent are each the first of an index: to find any that has,
    a database would look through all, not knowing how few there are.
    """
    other, now, me = worker.alias("other"), bindparam("now", type_=Instant), bindparam("who", type_=BigInteger)
    lives = state_in(other.c.state, ALIVE) & (other.c.id != me)
    silent = select(other.c.alive_until).where(lives).order_by(other.c.alive_until).limit(1).scalar_subquery() <= now
    leased = state_in(shard.c.state, [ShardState.LEASED])
    late = shard.alias("late")
    first = select(late.c.lease_until).where(late.c.lease_until.is_not(None)).order_by(late.c.lease_until).limit(1)
    over = first.scalar_subquery() <= now
    told = (controls.paused().label("paused"), or_(silent, over).label("over"))
    query = select(worker.c.state, worker.c.gpu_seconds, worker.c.tokens, *told, shard.c.id, shard.c.deaths)
    mine = query.outerjoin_from(worker, shard, (shard.c.worker_id == me) & leased)
    return mine.where(worker.c.id == me).with_for_update(key_share=True, of=worker)


def heard(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    *,
    ready: bool,
    working: bool = False,
    device: DeviceReading | None = None,
) -> WorkerState:
    """Note a sign of life; a lost worker runs again. One that is ``ready`` has its model."""
    rows = carry_out(tx, hearing(tx, worker_id, lease_seconds, ready=ready, working=working, device=device))
    if not rows:
        raise unknown(worker_id)
    return _running(tx, worker_id, rows[0].state, (WorkerState.LOST,))


def hearing(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    *,
    ready: bool,
    working: bool = False,
    device: DeviceReading | None = None,
) -> Write:
    """What :func:`heard` writes of a worker that is not lost."""
    times = {"who": worker_id, "now": tx.now, "until": tx.now + timedelta(seconds=lease_seconds)}
    form = Form(tx.connection.dialect.name, one=True)
    return Write(_alive(ready, working, device is not None), form, {**times, **_read(device)})


@cache
def _alive(ready: bool, working: bool, device: bool) -> Build:
    def build(form: Form, turn: ColumnElement[bool]) -> Update:
        now, until = bindparam("now", type_=Instant), bindparam("until", type_=Instant)
        alive: dict[str, Any] = {"heartbeat_at": now, "alive_until": until}
        if ready:
            alive["ready_at"] = func.coalesce(worker.c.ready_at, now)
        if working:
            alive["worked_at"] = now
        if device:
            alive |= {name: bindparam(f"its_{name}", type_=worker.c[name].type) for name in _DEVICE}
        return update(worker).where(worker.c.id == bindparam("who"), turn).values(alive).returning(worker.c.state)

    return build


def _running(tx: Transaction, worker_id: int, state: WorkerState, sources: Collection[WorkerState]) -> WorkerState:
    if state not in sources:
        return state
    move_workers(tx, EventKind.WORKER_RUNNING, worker.c.id == worker_id, actor=name(worker_id))
    return WorkerState.RUNNING


def lock(tx: Transaction, ids: Select[tuple[int]]) -> None:
    """Lock the workers that ``ids`` finds, in order."""
    query = select(worker.c.id).where(worker.c.id.in_(ids)).order_by(worker.c.id)
    tx.connection.execute(query.with_for_update(key_share=True))


def counting(tx: Transaction, spent: Iterable[tuple[int, Cost]]) -> list[Write]:
    """Lock workers, and add what their shards took to what they have done."""
    of_worker: dict[int, list[Cost]] = defaultdict(list)
    for worker_id, cost in spent:
        if cost != FREE:
            of_worker[worker_id].append(cost)
    costs = [{"who": worker_id, **asdict(Cost.total(costs))} for worker_id, costs in sorted(of_worker.items())]
    if not costs:
        return []
    form, rows = asked(tx, "spent", costs)
    return [Write(_counting, form, {"now": tx.now, **rows})]


def _counting(form: Form, turn: ColumnElement[bool]) -> Update:
    sums: dict[str, TypeEngine[Any]] = {"gpu_seconds": Float(), "tokens": BigInteger(), "shared_tokens": BigInteger()}
    rows = given(form, "spent", who=BigInteger(), **sums)
    spent = locked(worker, rows, worker.c.id == rows.c.who, turn)
    values = {name: worker.c[name] + spent.c[name] for name in sums} | {"worked_at": bindparam("now", type_=Instant)}
    return update(worker).where(worker.c.id == spent.c.key).values(values)


def drain(tx: Transaction, worker_id: int, actor: str) -> None:
    """Ask a worker to finish what it holds and stop."""
    get(tx, worker_id)
    move_workers(tx, EventKind.WORKER_DRAINING, worker.c.id == worker_id, actor=actor)


def silent(tx: Transaction) -> Select[tuple[int]]:
    """Workers that were silent for longer than they promised."""
    return select(worker.c.id).where(worker.c.alive_until <= tx.now, state_in(worker.c.state, ALIVE))


def notice_silence(tx: Transaction) -> None:
    """Count silent workers as lost, but for those of whom another transaction takes note now."""
    ids = tx.connection.scalars(silent(tx).with_for_update(key_share=True, skip_locked=True)).all()
    if ids:
        why = "no heartbeat for longer than its lease"
        move_workers(tx, EventKind.WORKER_LOST, worker.c.id.in_(ids), reason=why)


def _read(device: DeviceReading | None) -> Mapping[str, Any]:
    if device is None:
        return {}
    readings = (device.name, device.memory_used, device.memory_total, device.utilization)
    return {f"its_{column}": reading for column, reading in zip(_DEVICE, readings, strict=True)}
