"""The lives of pilots: requested, queued, running, draining, ended; and who leads the scheduling of them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, union_all, update

from ndif_batch.errors import ConflictError, NotFoundError
from ndif_batch.queue import models
from ndif_batch.queue.cluster import LeaderRecord, PilotRecord, PilotState
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, Json
from ndif_batch.queue.states import PILOT
from ndif_batch.queue.tables import leader, pilot
from ndif_batch.queue.transitions import record

_KINDS = {move.targets[0]: kind for kind, move in PILOT.items()}


def lead(tx: Transaction, name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lease ``name`` for ``holder``; False while another one's has not run out.

    One that is far longer than ``seconds`` is from a time when the clock was ahead; who asks for none ends no other.
    """
    until = tx.now + timedelta(seconds=seconds)
    if tx.insert_new(leader, {"name": name, "holder": holder, "until": until}) is not None:
        return True
    free = or_(leader.c.holder == holder, leader.c.until <= tx.now)
    if seconds:
        free = or_(free, leader.c.until > until + timedelta(seconds=seconds))
    taken = update(leader).where(leader.c.name == name, free).values(holder=holder, until=until)
    return tx.connection.scalar(taken.returning(leader.c.name)) is not None


def leader_of(tx: Transaction, name: str) -> LeaderRecord | None:
    """Who has the lease ``name`` now."""
    query = select(leader.c.holder, leader.c.until).where(leader.c.name == name, leader.c.until > tx.now)
    row = tx.connection.execute(query).one_or_none()
    return None if row is None else LeaderRecord(row.holder, row.until)


def add(tx: Transaction, name: str, model: str, launcher: str, resources: Json, actor: str) -> PilotRecord:
    """Write down a pilot that is about to be started; ``ConflictError`` if its name was used before."""
    models.get(tx, model)
    row = {
        "name": name,
        "model": model,
        "launcher": launcher,
        "resources": resources,
        "state": PilotState.REQUESTED,
        "requested_at": tx.now,
    }
    pilot_id = tx.insert_new(pilot, row)
    if pilot_id is None:
        raise ConflictError(f"there is a pilot {name!r} already", hint="give each pilot a name of its own")
    record(tx, EventKind.PILOT_REQUESTED, actor, {"pilot": name, "model": model, "launcher": launcher})
    return get(tx, pilot_id)


def get(tx: Transaction, pilot_id: int) -> PilotRecord:
    """One pilot; ``NotFoundError`` if there is none."""
    found = _some(tx, pilot.c.id == pilot_id)
    if not found:
        raise NotFoundError(f"there is no pilot {pilot_id}")
    return found[0]


def every(tx: Transaction, *, active: bool, limit: int | None, after: int) -> list[PilotRecord]:
    """Those that have not ended, oldest first; all there ever were unless ``active``. ``after`` is an id."""
    return _some(tx, pilot.c.ended_at.is_(None) if active else pilot.c.id.is_not(None), limit, after)


def newest(tx: Transaction, of_models: Collection[str], ended: int, limit: int | None, after: int) -> list[PilotRecord]:
    """Those that have not ended, and the newest ``ended`` of each of these models that have; oldest first."""
    active = select(pilot.c.id).where(pilot.c.ended_at.is_(None))
    late = select(pilot.c.id).where(pilot.c.ended_at.is_not(None)).order_by(pilot.c.id.desc()).limit(ended)
    each = (late.where(pilot.c.model == name).subquery() for name in sorted(of_models))
    return _some(tx, pilot.c.id.in_(union_all(active, *(select(found.c.id) for found in each))), limit, after)


def named(tx: Transaction, names: Collection[str]) -> list[PilotRecord]:
    """Those of these names, whether they have ended or not."""
    return _some(tx, pilot.c.name.in_(names)) if names else []


def change(
    tx: Transaction,
    pilot_id: int,
    expected: PilotState,
    state: PilotState,
    *,
    external_id: str | None,
    reason: str | None,
    actor: str,
) -> bool:
    """Move a pilot that is still ``expected`` to ``state``, which may be the same; False if it is somewhere else.

    ``ConflictError`` for a move that no pilot may make. None keeps the external id and the reason.
    """
    pilot_name = get(tx, pilot_id).name
    kind = None if state is expected else _KINDS.get(state)
    if kind is not None and expected not in PILOT[kind].sources:
        raise ConflictError(f"pilot {pilot_name!r} cannot go from {expected} to {state}")
    changed: dict[str, Any] = {"state": state, "external_id": external_id, "reason": reason}
    values = {name: value for name, value in changed.items() if value is not None} | _times(tx, state)
    moved = update(pilot).where(pilot.c.id == pilot_id, pilot.c.state == expected).values(values)
    if tx.connection.scalar(moved.returning(pilot.c.id)) is None:
        return False
    if kind is not None:
        record(tx, kind, actor, {"pilot": pilot_name} | ({} if reason is None else {"reason": reason}))
    return True


def boarded(tx: Transaction, name: str, worker_id: int, actor: str) -> None:
    """A worker has begun inside the pilot ``name``, which therefore runs; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(
        update(pilot).where(pilot.c.name == name).values(worker_id=worker_id).returning(pilot.c.id, pilot.c.state)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no pilot {name!r}")
    if row.state in PILOT[EventKind.PILOT_RUNNING].sources:
        change(tx, row.id, row.state, PilotState.RUNNING, external_id=None, reason=None, actor=actor)


def _times(tx: Transaction, state: PilotState) -> dict[str, Any]:
    if state.final:
        return {"ended_at": func.coalesce(pilot.c.ended_at, tx.now)}
    if state is PilotState.DRAINING:
        return {name: func.coalesce(pilot.c[name], tx.now) for name in ("started_at", "draining_at")}
    if state is PilotState.RUNNING:
        return {"started_at": func.coalesce(pilot.c.started_at, tx.now)}
    return {"started_at": None, "draining_at": None}


def _some(tx: Transaction, where: ColumnElement[bool], limit: int | None = None, after: int = 0) -> list[PilotRecord]:
    query = select(pilot).where(where, pilot.c.id > after).order_by(pilot.c.id).limit(limit)
    return [PilotRecord(**dict(row)) for row in tx.connection.execute(query).mappings()]
