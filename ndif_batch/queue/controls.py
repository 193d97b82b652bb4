"""What administrators turn for everybody: settings by name, and pauses of the whole queue or of one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind
from ndif_batch.queue.tables import setting
from ndif_batch.queue.transitions import record
from ndif_batch.scheduling.policy import HALF_LIFE_HOURS

HALF_LIFE = "half_life_hours"
PAUSE = "pause"
"""The setting that pauses everything; ``pause:<model>`` pauses one model."""


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


def pause_name(model: str | None) -> str:
    """The setting that pauses ``model``, or everything."""
    return PAUSE if model is None else f"{PAUSE}:{model}"


def half_life_hours(tx: Transaction) -> float:
    """After how long a GPU-second counts half; the setting ``half_life_hours``."""
    found = tx.connection.scalar(select(setting.c.value).where(setting.c.name == HALF_LIFE))
    return HALF_LIFE_HOURS if found is None else float(found)


def of_lease(tx: Transaction, model: str) -> tuple[bool, float]:
    """Whether no shard of ``model`` may be leased now, and the half-life of usage in hours."""
    pauses = [pause_name(None), pause_name(model)]
    query = select(setting.c.name, setting.c.value).where(setting.c.name.in_([*pauses, HALF_LIFE]))
    found = {row.name: row.value for row in tx.connection.execute(query)}
    return any(found.get(name) for name in pauses), float(found.get(HALF_LIFE, HALF_LIFE_HOURS))
