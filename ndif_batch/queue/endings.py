"""Which jobs have ended, and which of them nobody is going to finish: what a worker asks to finish archives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, exists, select

from ndif_batch.queue import checks, workers
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EndedJob, JobState, store
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import ALIVE, LEASABLE, job, worker

LONGEST_FINISH = timedelta(hours=1)
"""After this time nobody is still finishing an archive."""

MOST = 100
"""The most jobs that one call tells."""


def has_work(tx: Transaction, model: str) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.has_work`."""
    return bool(tx.connection.scalar(select(exists().where(job.c.model == model, state_in(job.c.state, LEASABLE)))))


def ended(tx: Transaction, job_ids: Sequence[int]) -> list[EndedJob]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.ended`."""
    final = [state for state in JobState if state.final]
    return _read(tx, job.c.id.in_(job_ids) & state_in(job.c.state, final), len(job_ids))


def left_over(tx: Transaction, worker_id: int) -> list[EndedJob]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.left_over`."""
    me = workers.get(tx, worker_id)
    lives = state_in(worker.c.state, ALIVE) & (worker.c.alive_until > me.registered_at)
    others = exists().where(worker.c.model == me.model, worker.c.id != me.id, lives)
    found = (job.c.model == me.model) & state_in(job.c.state, [JobState.COMPLETED, JobState.FAILED])
    if tx.connection.scalar(select(others)):
        found &= job.c.finished_at < me.registered_at - LONGEST_FINISH
    return _read(tx, found, MOST)


def _read(tx: Transaction, where: ColumnElement[bool], limit: int) -> list[EndedJob]:
    query = select(job.c.id, job.c.state, job.c.archive, job.c.user).where(where).order_by(job.c.id.desc()).limit(limit)
    rows = tx.connection.execute(query).all()
    found = checks.verified(tx, [row.id for row in rows])
    return [EndedJob(row.id, row.state, store(row.archive, row.user, row.id), found[row.id]) for row in rows]
