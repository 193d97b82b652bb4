"""Refuses a submission that would take its user over a quota."""

from __future__ import annotations

from sqlalchemy import func, select

from ndif_batch.errors import NotAllowedError
from ndif_batch.queue import users
from ndif_batch.queue.cluster import Quotas
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import JobSpec, JobState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import job, user

OPEN = [state for state in JobState if not state.final]


def require(tx: Transaction, spec: JobSpec, job_id: int) -> None:
    """``NotAllowedError`` with the number that would be over with the new job ``job_id``."""
    quotas = users.get(tx, spec.user).quotas
    if quotas == Quotas():
        return
    tx.connection.execute(select(user.c.name).where(user.c.name == spec.user).with_for_update(key_share=True))
    others = (job.c.user == spec.user) & (job.c.id != job_id)
    if quotas.running_shards == 0:
        raise NotAllowedError(f"user {spec.user!r} may run 0 shards at once", hint="ask an administrator for more")
    if quotas.pending_tasks is not None:
        left = func.sum(job.c.tasks - job.c.tasks_done - job.c.tasks_failed)
        waiting = select(func.coalesce(left, 0)).where(others, state_in(job.c.state, OPEN))
        have = int(tx.connection.execute(waiting).scalar_one())
        _refuse_over(spec.user, "pending tasks", have, spec.tasks, quotas.pending_tasks)
    if quotas.archive_bytes is not None:
        filled = select(func.coalesce(func.sum(job.c.archive_bytes), 0)).where(others)
        have = int(tx.connection.execute(filled).scalar_one())
        _refuse_over(spec.user, "archive bytes", have, spec.archive_bytes, quotas.archive_bytes)


def _refuse_over(name: str, what: str, have: int, more: int, limit: int) -> None:
    if more and have + more > limit:
        raise NotAllowedError(
            f"user {name!r} would have {have + more:,} {what} ({have:,} and these {more:,}), of {limit:,} allowed",
            hint="wait for jobs to end, submit less, or ask an administrator for more",
        )
