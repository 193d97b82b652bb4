"""Sets right what a clock that was wrong has left behind: signs of life that are still to come."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, exists, select, update

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import ALIVE, shard, worker

AHEAD = timedelta(seconds=10)
"""No two transactions that meet differ by so much."""


def went_back(tx: Transaction) -> bool:
    """Whether a worker that counts as alive was last heard of at a time that is still to come."""
    return bool(tx.connection.scalar(select(exists().where(_ahead(tx)))))


def set_right(tx: Transaction) -> None:
    """Measure the silence of such workers, and their leases, from now on.

    Else those of a worker that died meanwhile would last as long as the clock was ahead.
    """
    query = select(worker.c.id, worker.c.heartbeat_at, worker.c.alive_until).where(_ahead(tx)).order_by(worker.c.id)
    for row in tx.connection.execute(query.with_for_update(key_share=True)).all():
        until = tx.now + (row.alive_until - row.heartbeat_at)
        told = update(worker).where(worker.c.id == row.id).values(heartbeat_at=tx.now, alive_until=until)
        held = state_in(shard.c.state, [ShardState.LEASED]) & (shard.c.worker_id == row.id)
        late = update(shard).where(held, shard.c.lease_until > until).values(lease_until=until)
        for change in (told, late):
            tx.connection.execute(change)


def _ahead(tx: Transaction) -> ColumnElement[bool]:
    return state_in(worker.c.state, ALIVE) & (worker.c.heartbeat_at > tx.now + AHEAD)
