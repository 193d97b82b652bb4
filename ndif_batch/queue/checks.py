"""What came of running tasks again alone: a row a shard that had some, merged when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, insert, select

from ndif_batch.archive.verified import Verified, merged
from ndif_batch.queue import workers
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind
from ndif_batch.queue.tables import shard_check
from ndif_batch.queue.transitions import record


def keep(tx: Transaction, checked: Iterable[tuple[Row[Any], Verified | None]]) -> None:
    """Keep the checks of shards that have ended; an event tells of each whose tasks deviate."""
    rows = []
    for held, check in checked:
        if check is None:
            continue
        rows.append({"job_id": held.job_id, "shard_id": held.id, "found": check.to_json()})
        if check.deviating:
            actor = workers.name(held.worker_id)
            record(tx, EventKind.SHARD_DEVIATED, actor, check.to_json(), job_id=held.job_id, shard_id=held.id)
    if rows:
        tx.connection.execute(insert(shard_check), rows)


def verified(tx: Transaction, job_ids: Sequence[int]) -> dict[int, Verified]:
    """What is known of each of these jobs."""
    found: dict[int, list[Verified]] = {job_id: [] for job_id in job_ids}
    query = select(shard_check.c.job_id, shard_check.c.found).where(shard_check.c.job_id.in_(job_ids))
    for row in tx.connection.execute(query):
        found[row.job_id].append(Verified.from_json(row.found))
    return {job_id: merged(checks) for job_id, checks in found.items()}
