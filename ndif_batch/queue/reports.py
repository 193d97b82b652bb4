"""Keeps what workers and schedulers have reported last; of those that are long gone, their sum."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import String, cast, delete, literal, select, update

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import ALIVE, report, worker
from ndif_batch.queue.telemetry import Measured, total
from ndif_batch.queue.workers import CALLED

GONE = timedelta(days=1)
"""Who does not live and has reported nothing for so long is not heard of again."""


def put(tx: Transaction, source: str, model: str | None, measured: Measured) -> None:
    """What ``source`` has measured since it began; ``model`` is the one that it holds.

    With each new source of a model those that are gone become one row, so that there are not more and more of them.
    """
    values = {"model": model, "reported_at": tx.now, "measured": measured.to_json()}
    if tx.connection.execute(update(report).where(report.c.source == source).values(values)).rowcount:
        return
    row = tx.insert(report).values(source=source, **values)
    tx.connection.execute(row.on_conflict_do_update(index_elements=[report.c.source], set_=values))
    _fold(tx, model)


def by_model(tx: Transaction) -> dict[str | None, Measured]:
    """What was measured by all together, by model; that of schedulers under None."""
    found: dict[str | None, list[Measured]] = {}
    for row in tx.connection.execute(select(report.c.model, report.c.measured)):
        found.setdefault(row.model, []).append(Measured.from_json(row.measured))
    return {model: total(parts) for model, parts in found.items()}


def _fold(tx: Transaction, model: str | None) -> None:
    """Make the rows of a model's workers, or of schedulers, that are gone one; the sums stay what they are."""
    past = f"past: {model or ''}"
    living = select(literal(CALLED) + cast(worker.c.id, String)).where(state_in(worker.c.state, ALIVE))
    gone = select(report.c.source, report.c.measured).where(
        report.c.model.is_not_distinct_from(model),
        report.c.reported_at <= tx.now - GONE,
        report.c.source != past,
        report.c.source.not_in(living),
    )
    rows = tx.connection.execute(gone.with_for_update(skip_locked=True, of=report)).all()
    if not rows:
        return
    empty = {"source": past, "model": model, "reported_at": tx.now, "measured": Measured().to_json()}
    tx.insert_new(report, empty)
    here = report.c.source == past
    before = tx.connection.scalars(select(report.c.measured).where(here).with_for_update()).one()
    both = total(map(Measured.from_json, [before, *(row.measured for row in rows)])).rounded_up()
    tx.connection.execute(update(report).where(here).values(reported_at=tx.now, measured=both.to_json()))
    tx.connection.execute(delete(report).where(report.c.source.in_([row.source for row in rows])))
