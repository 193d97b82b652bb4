"""Which jobs have results that another may take, and whose results are given up."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import literal, or_, select, text, update

from ndif_batch.errors import ConflictError, NotAllowedError
from ndif_batch.queue import dependencies, jobs, users
from ndif_batch.queue.columns import Instant, seconds_from
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobRecord, JobState, Json
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import KEPT, job
from ndif_batch.queue.transitions import record

EARLIER = 16
"""In so many earlier jobs of the same identity a job looks for its tasks; each holds what it took itself."""

AT_ONCE = 100
"""So many jobs' results expire in one transaction."""

DAY_SECONDS = 86_400

OPEN = [state for state in JobState if not state.final]
FINAL = [state for state in JobState if state.final]


def reusable(tx: Transaction, owner: str, identity: str) -> list[int]:
    """The newest jobs of ``owner`` and ``identity`` that have saved something or still may, newest first."""
    query = (
        select(job.c.id)
        .where(job.c.user == owner, job.c.identity == identity, job.c.identity.is_not(None), job.c.removed_at.is_(None))
        .where(or_(state_in(job.c.state, OPEN), job.c.tasks_done > 0))
        .order_by(job.c.id.desc())
        .limit(EARLIER)
    )
    return list(tx.connection.scalars(query))


def source(tx: Transaction, job_id: int, source_id: int) -> JobRecord | None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.source`."""
    mine = tx.connection.execute(select(job.c.user, job.c.identity).where(job.c.id == job_id)).one_or_none()
    if mine is None or mine.identity is None:
        return None
    same = (job.c.user == mine.user) & (job.c.identity == mine.identity) & job.c.removed_at.is_(None)
    found = jobs.some(tx, (job.c.id == source_id) & same)
    return found[0] if found else None


def give_up(tx: Transaction, job_id: int, actor: str) -> JobRecord:
    """Nobody reads or re-uses a job's results any more; its files may go.

    ``ConflictError`` before it has ended, ``NotAllowedError`` for who is neither its user nor an administrator.
    """
    found = jobs.get(tx, job_id)
    if actor != found.user and not users.is_admin(tx, actor):
        raise NotAllowedError(f"job {job_id} belongs to {found.user!r}, not to {actor!r}")
    if not found.state.final:
        raise ConflictError(f"job {job_id} is {found.state}; its results cannot go yet", hint="cancel it first")
    reader = next(iter(dependencies.open_after(tx, [job_id])), None)
    if reader is not None:
        raise ConflictError(f"job {reader} comes after job {job_id} and has not ended", hint="cancel that first")
    _give_up(tx, found, actor, {})
    return jobs.get(tx, job_id)


def _give_up(tx: Transaction, found: JobRecord, actor: str, why: Json) -> None:
    here = (job.c.id == found.id) & state_in(job.c.state, FINAL) & job.c.removed_at.is_(None)
    if tx.connection.execute(update(job).where(here).values(removed_at=tx.now)).rowcount:
        record(tx, EventKind.RESULTS_REMOVED, actor, {"bytes": found.archive_bytes, **why}, job_id=found.id)


def expired(tx: Transaction) -> list[int]:
    """The jobs that ended longer ago than their results are to be kept, the first to end first; some of many."""
    age = seconds_from(job.c.finished_at, literal(tx.now, Instant()))
    over = age >= job.c.retention_days * DAY_SECONDS
    query = select(job.c.id).where(text(KEPT), over).order_by(job.c.finished_at).limit(AT_ONCE)
    return list(tx.connection.scalars(query))


def expire(tx: Transaction, job_ids: Sequence[int], actor: str) -> list[int]:
    """Give up the results of those of the jobs that are expired still: one that is retried runs and keeps them."""
    still = set(expired(tx))
    still -= set(dependencies.open_after(tx, job_ids).values())
    given = [job_id for job_id in job_ids if job_id in still]
    for found in jobs.by_id(tx, given).values():
        _give_up(
            tx,
            found,
            actor,
            {"reason": f"kept for {found.retention_days} day{'' if found.retention_days == 1 else 's'}"},
        )
    return given


def deleted(tx: Transaction, job_id: int) -> None:
    """The files of given-up results are deleted: they count against no quota."""
    given_up = (job.c.id == job_id) & job.c.removed_at.is_not(None)
    tx.connection.execute(update(job).where(given_up).values(archive_bytes=0))


def given_up(tx: Transaction) -> list[JobRecord]:
    """The jobs whose results are given up and not known to be deleted."""
    return jobs.some(tx, job.c.removed_at.is_not(None) & (job.c.archive_bytes > 0))
