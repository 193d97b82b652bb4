"""What administrators turn for everybody: settings by name, and pauses of the whole queue or of one model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    String,
    Text,
    bindparam,
    cast,
    exists,
    func,
    literal,
    select,
    update,
)

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind
from ndif_batch.queue.tables import setting
from ndif_batch.queue.transitions import record
from ndif_batch.queue.wishes import PAUSE, load_name, pin_name
from ndif_batch.scheduling.policy import HALF_LIFE_HOURS

HALF_LIFE = "half_life_hours"


def every(tx: Transaction) -> dict[str, Any]:
    """All settings by name."""
    query = select(setting.c.name, setting.c.value).order_by(setting.c.name)
    return {row.name: row.value for row in tx.connection.execute(query)}


def put(tx: Transaction, changes: Mapping[str, Any], actor: str) -> None:
    """Set each name to its value, any JSON."""
    for name, value in changes.items():
        row = {"name": name, "value": value, "changed_at": tx.now, "changed_by": actor}
        if tx.insert_new(setting, row) is None:
            tx.connection.execute(update(setting).where(setting.c.name == name).values(row))
        record(tx, EventKind.SETTING_CHANGED, actor, {"name": name, "value": value})


def no_pilots(tx: Transaction, model: str) -> dict[str, Any]:
    """The changes of the settings after which no pilot of ``model`` is kept or started without work."""
    wishes: dict[str, Any] = {pin_name(model): 0, load_name(model): False}
    return {name: none for name, none in wishes.items() if every(tx).get(name)}


@cache
def half_life() -> ColumnElement[float]:
    """After how many hours a GPU-second counts half, in SQL: the setting ``half_life_hours``."""
    found = select(cast(cast(setting.c.value, Text), Float)).where(setting.c.name == HALF_LIFE)
    return func.coalesce(found.scalar_subquery(), HALF_LIFE_HOURS, type_=Float)


@cache
def paused() -> ColumnElement[bool]:
    """Whether no shard of the parameter ``model`` may be leased now."""
    pauses = [PAUSE, literal(f"{PAUSE}:").concat(bindparam("model", type_=String))]
    no = ["false", "null", "0"]
    return exists().where(setting.c.name.in_(pauses), cast(setting.c.value, Text).not_in(no))
