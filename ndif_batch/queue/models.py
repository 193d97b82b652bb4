"""The models that jobs may name."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select, update

from ndif_batch.errors import ConflictError, NotFoundError, nearest
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ModelRecord
from ndif_batch.queue.rows import model_record
from ndif_batch.queue.tables import model
from ndif_batch.queue.transitions import SYSTEM, record


def add(tx: Transaction, wanted: ModelRecord) -> ModelRecord:
    """Register a model, or update where it lies; ``ConflictError`` if its name stands for other weights."""
    row = asdict(wanted) | {"created_at": tx.now}
    if tx.insert_new(model, row) is None:
        known = get(tx, wanted.name)
        if known.digest != wanted.digest:
            raise ConflictError(f"model {wanted.name!r} exists with other weights", hint="add it under another name")
        kept = row | {"created_at": known.created_at}
        tx.connection.execute(update(model).where(model.c.name == wanted.name).values(kept))
    detail = {"name": wanted.name, "revision": wanted.revision, "digest": wanted.digest}
    record(tx, EventKind.MODEL_ADDED, SYSTEM, detail)
    return get(tx, wanted.name)


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
