"""Jobs that come after others: they begin when all of these are completed, and are cancelled if one is not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Select, insert, select

from ndif_batch.errors import ConflictError, NotFoundError, UsageError
from ndif_batch.queue import jobs, tallies
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobRecord, JobSpec, JobState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import dependency, job
from ndif_batch.queue.transitions import SYSTEM, move_jobs

MOST = 64
"""The most jobs that one comes after."""

AT_ONCE = 1000

FINAL = [state for state in JobState if state.final]


def required(tx: Transaction, spec: JobSpec) -> bool:
    """Whether a new job has to wait for one that it comes after; these are locked, so that none of them ends meanwhile.

    ``NotFoundError`` for one that is not its user's, ``ConflictError`` for one after which nothing can come.
    """
    if not spec.after:
        return False
    if len(spec.after) > MOST:
        raise UsageError(f"a job comes after {MOST} others at most, not {len(spec.after)}")
    states = jobs.lock(tx, set(spec.after))
    owners = {one.id: one for one in jobs.by_id(tx, spec.after).values()}
    for after in spec.after:
        if after not in states or owners[after].user != spec.user:
            raise NotFoundError(f"there is no job {after}")
        if states[after] in (JobState.FAILED, JobState.CANCELLED):
            raise ConflictError(f"job {after} is {states[after]}, and nothing comes after it", hint="submit it again")
        if owners[after].removed_at is not None:
            raise ConflictError(f"the results of job {after} were removed", hint="submit it again")
    waits = any(state is not JobState.COMPLETED for state in states.values())
    if waits and spec.hold:
        raise UsageError("a job that comes after others is not put on hold", hint="hold it when it waits for a worker")
    return waits


def keep(tx: Transaction, job_id: int, after: Collection[int]) -> None:
    """Write down which jobs a new one comes after."""
    if after:
        tx.connection.execute(insert(dependency), [{"job_id": job_id, "after_id": one} for one in sorted(set(after))])


def waiting(tx: Transaction, ended: Collection[int]) -> list[int]:
    """The jobs that come after these, and still wait."""
    return sorted(set(tx.connection.scalars(_after(ended).where(job.c.awaiting))))


def settle(tx: Transaction, job_id: int) -> None:
    """Let a job begin if all that it comes after is completed, or cancel it if one of that is not."""
    found = jobs.get(tx, job_id)
    if not found.awaiting:
        return
    states = {one: record.state for one, record in jobs.by_id(tx, found.after).items()}
    lost = next((one for one in found.after if states[one] in (JobState.FAILED, JobState.CANCELLED)), None)
    if lost is not None:
        jobs.cancel(tx, job_id, SYSTEM, f"job {lost}, after which it comes, is {states[lost]}")
    elif all(state is JobState.COMPLETED for state in states.values()):
        reason = f"job {' and '.join(map(str, found.after))} is COMPLETED"
        if move_jobs(tx, EventKind.JOB_RELEASED, [job_id], target=JobState.PENDING, reason=reason):
            tallies.changed(tx, job_id)


def unsettled(tx: Transaction) -> Sequence[int]:
    """Jobs that have ended, after which some come that still wait."""
    later = job.alias("later")
    query = (
        select(job.c.id)
        .distinct()
        .join(dependency, dependency.c.after_id == job.c.id)
        .join(later, later.c.id == dependency.c.job_id)
        .where(later.c.awaiting, state_in(job.c.state, FINAL))
        .limit(AT_ONCE)
    )
    return list(tx.connection.scalars(query))


def open_after(tx: Transaction, job_ids: Collection[int]) -> dict[int, int]:
    """The jobs that come after these and have not ended, each with one of these."""
    rows = tx.connection.execute(_after(job_ids).where(state_in(job.c.state, [s for s in JobState if not s.final])))
    return {row.job_id: row.after_id for row in rows}


def prerequisite(tx: Transaction, job_id: int, source_id: int) -> JobRecord | None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.prerequisite`."""
    asking = jobs.by_id(tx, [job_id]).get(job_id)
    if asking is None or source_id not in asking.after:
        return None
    completed = (job.c.user == asking.user) & state_in(job.c.state, [JobState.COMPLETED]) & job.c.removed_at.is_(None)
    return next(iter(jobs.some(tx, (job.c.id == source_id) & completed)), None)


def _after(job_ids: Collection[int]) -> Select[Any]:
    its_own = dependency.c.after_id.in_(job_ids)
    return select(dependency.c.job_id, dependency.c.after_id).join(job, job.c.id == dependency.c.job_id).where(its_own)
