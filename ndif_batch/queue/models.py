"""The models that jobs may name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select, update

from ndif_batch.errors import ConflictError, NotFoundError, nearest
from ndif_batch.queue import controls
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobState, ModelRecord
from ndif_batch.queue.rows import model_record, state_in
from ndif_batch.queue.tables import job, model
from ndif_batch.queue.transitions import record


def add(tx: Transaction, wanted: ModelRecord, actor: str) -> ModelRecord:
    """Register a model, or update where it lies; ``ConflictError`` if its name stands for other weights."""
    row = asdict(wanted) | {"created_at": tx.now}
    if tx.insert_new(model, row) is None:
        known = get(tx, wanted.name)
        if known.digest != wanted.digest:
            raise ConflictError(f"model {wanted.name!r} exists with other weights", hint="add it under another name")
        kept = row | {"created_at": known.created_at}
        tx.connection.execute(update(model).where(model.c.name == wanted.name).values(kept))
    detail = {"name": wanted.name, "revision": wanted.revision, "digest": wanted.digest}
    record(tx, EventKind.MODEL_ADDED, actor, detail)
    return get(tx, wanted.name)


def remove(tx: Transaction, name: str, actor: str) -> ModelRecord:
    """Let no job name it any more; ``ConflictError`` while one of it waits or runs. Pins and loads of it end."""
    found = get(tx, name)
    still_open = state_in(job.c.state, [state for state in JobState if not state.final])
    count = tx.connection.execute(select(func.count()).where(job.c.model == name, still_open)).scalar_one()
    if count:
        raise ConflictError(f"{count} jobs of model {name!r} wait or run", hint="cancel them, or let them end")
    if found.enabled:
        tx.connection.execute(update(model).where(model.c.name == name).values(enabled=False))
        record(tx, EventKind.MODEL_REMOVED, actor, {"name": name})
        controls.put(tx, controls.no_pilots(tx, name), actor)
    return get(tx, name)


def wish(tx: Transaction, name: str, changes: Mapping[str, Any], actor: str) -> None:
    """Set what is wished of a model's pilots; ``ConflictError`` for one that was removed."""
    if not get(tx, name).enabled:
        raise ConflictError(f"model {name!r} was removed", hint="add it again: ndif-batch model add")
    controls.put(tx, changes, actor)


def get(tx: Transaction, name: str) -> ModelRecord:
    """One model; ``NotFoundError`` with the nearest name if there is none."""
    row = tx.connection.execute(select(model).where(model.c.name == name)).mappings().one_or_none()
    if row is None:
        names = tx.connection.scalars(select(model.c.name).order_by(model.c.name)).all()
        raise NotFoundError(f"there is no model {name!r}", hint=nearest(name, names))
    return model_record(row)


def every(tx: Transaction) -> list[ModelRecord]:
    """All models by name."""
    return [model_record(row) for row in tx.connection.execute(select(model).order_by(model.c.name)).mappings()]
