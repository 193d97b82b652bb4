"""Keeps what workers and schedulers have reported last."""

from __future__ import annotations

from sqlalchemy import select

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.tables import report
from ndif_batch.queue.telemetry import Measured, total


def put(tx: Transaction, source: str, model: str | None, measured: Measured) -> None:
    """What ``source`` has measured since it began; ``model`` is the one that it holds."""
    values = {"model": model, "reported_at": tx.now, "measured": measured.to_json()}
    row = tx.insert(report).values(source=source, **values)
    tx.connection.execute(row.on_conflict_do_update(index_elements=[report.c.source], set_=values))


def by_model(tx: Transaction) -> dict[str | None, Measured]:
    """What was measured by all together, by model; that of schedulers under None."""
    found: dict[str | None, list[Measured]] = {}
    for row in tx.connection.execute(select(report.c.model, report.c.measured)):
        found.setdefault(row.model, []).append(Measured.from_json(row.measured))
    return {model: total(parts) for model, parts in found.items()}
