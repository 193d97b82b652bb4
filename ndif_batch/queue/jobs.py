"""What users do to jobs, and how a job's state follows from its shards."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Integer, Row, Select, Update, delete, exists, func, select, update

from ndif_batch.errors import ConflictError, NotFoundError
from ndif_batch.queue import states, tallies, users
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobRecord, JobState, ShardRecord, ShardState
from ndif_batch.queue.rows import job_query, job_record, state_in, with_failed_tasks
from ndif_batch.queue.sets import Form, asked, given, is_one_of, locked
from ndif_batch.queue.tables import job, shard, shard_check, task_error
from ndif_batch.queue.together import Write, carry_out
from ndif_batch.queue.transitions import move_jobs, move_shards, record


def some(tx: Transaction, where: ColumnElement[bool]) -> list[JobRecord]:
    """The jobs of ``where``."""
    return [job_record(row) for row in tx.connection.execute(job_query().where(where)).mappings()]


def by_id(tx: Transaction, ids: Collection[int]) -> dict[int, JobRecord]:
    """Those of the jobs that there are."""
    rows = tx.connection.execute(_known(), {"ids": ids}).mappings()
    return {row["id"]: job_record(row) for row in rows}


@cache
def _known() -> Select[Any]:
    return job_query().where(is_one_of(job.c.id))


def get(tx: Transaction, job_id: int) -> JobRecord:
    """One job; ``NotFoundError`` if there is none."""
    found = by_id(tx, [job_id])
    if not found:
        raise NotFoundError(f"there is no job {job_id}")
    return found[job_id]


def lock(tx: Transaction, ids: Collection[int]) -> dict[int, JobState]:
    """Lock jobs, in order; how they stand."""
    if not ids:
        return {}
    query = select(job.c.id, job.c.state).where(job.c.id.in_(ids)).order_by(job.c.id)
    return {row.id: row.state for row in tx.connection.execute(query.with_for_update(key_share=True))}


def hold(tx: Transaction, job_id: int, actor: str) -> None:
    """Lease no more of it; what is leased goes on."""
    _require(tx, job_id, EventKind.JOB_HELD)
    _move(tx, job_id, EventKind.JOB_HELD, actor=actor)
    tallies.changed(tx, job_id)


def release(tx: Transaction, job_id: int, actor: str) -> None:
    """End a hold."""
    held = _require(tx, job_id, EventKind.JOB_RELEASED)
    if held.awaiting:
        told = ", ".join(map(str, held.after))
        raise ConflictError(
            f"job {job_id} comes after {told} and begins by itself", hint=f"or cancel it: `ndif-batch cancel {job_id}`"
        )
    _move(tx, job_id, EventKind.JOB_RELEASED, actor=actor, target=states.started(held.started_at is not None))
    tallies.changed(tx, job_id)


def cancel(tx: Transaction, job_id: int, actor: str, because: str | None = None) -> None:
    """End it now, ``because`` of something; what is leased is taken from its workers, what is saved stays."""
    _require(tx, job_id, EventKind.JOB_CANCELLED)
    its_own = shard.c.job_id == job_id
    open_states = state_in(shard.c.state, states.SHARD[EventKind.SHARD_CANCELLED].sources)
    locking = select(shard.c.id, shard.c.state).where(its_own, open_states).order_by(shard.c.id)
    locked = tx.connection.execute(locking.with_for_update(key_share=True))
    leased = {row.id for row in locked if row.state is ShardState.LEASED}
    moved = move_shards(tx, EventKind.SHARD_CANCELLED, its_own, actor=actor)
    reason = because or f"cancelled by {actor}" + (f": {tx.why}" if tx.why else "")
    _move(tx, job_id, EventKind.JOB_CANCELLED, actor=actor, reason=reason, values={"shards_left": 0})
    tallies.left(tx, [one for one in moved if one.id in leased])
    tallies.changed(tx, job_id)


def retry(tx: Transaction, job_id: int, actor: str) -> None:
    """Put every shard back that failed or that holds failed tasks; its attempts count from zero again."""
    _require(tx, job_id, EventKind.JOB_RETRIED)
    again = with_failed_tasks(job_id)
    totals = select(func.count(), func.sum(shard.c.tasks_done), func.sum(shard.c.tasks_failed)).where(again)
    count, done, failed = tx.connection.execute(totals).one()
    if not count:
        raise ConflictError(f"job {job_id} has no failed tasks to retry")
    moved = move_shards(tx, EventKind.SHARD_RETRIED, again, actor=actor, values={"attempts": 0, "deaths": 0})
    ids = select(shard.c.id).where(shard.c.job_id == job_id, shard.c.state == ShardState.PENDING)
    for told in (task_error, shard_check):
        tx.connection.execute(delete(told).where(told.c.job_id == job_id, told.c.shard_id.in_(ids)))
    begun = exists().where(shard.c.job_id == job_id, shard.c.state.in_([ShardState.LEASED, ShardState.DONE]))
    target = states.started(bool(tx.connection.scalar(select(begun))))
    counts = {
        "shards_left": job.c.shards_left + len(moved),
        "tasks_done": job.c.tasks_done - int(done),
        "tasks_failed": job.c.tasks_failed - int(failed),
    }
    _move(tx, job_id, EventKind.JOB_RETRIED, actor=actor, target=target, values=counts)
    if get(tx, job_id).removed_at is not None:  # asked last, when nobody else can change the row any more
        raise ConflictError(f"the results of job {job_id} were removed", hint="submit it again")
    tallies.changed(tx, job_id)


def prioritize(tx: Transaction, job_id: int, priority: int, actor: str) -> None:
    """Lease it before those of lower priority from now on; ``NotAllowedError`` for more than ``actor`` may give."""
    users.require_priority(tx, priority, actor)
    state = lock(tx, [job_id]).get(job_id)
    before = get(tx, job_id).priority
    if state is None or state.final:
        raise ConflictError(f"job {job_id} is {state} and has no turn any more")
    tx.connection.execute(update(job).where(job.c.id == job_id).values(priority=priority))
    record(tx, EventKind.JOB_PRIORITIZED, actor, {"priority": priority, "before": before}, job_id=job_id)
    tallies.changed(tx, job_id)


def settle(tx: Transaction, moved: Iterable[ShardRecord]) -> None:
    """Count the shards among ``moved`` that have ended, and end each job of which it was the last."""
    over = (one for one in moved if one.state in (ShardState.DONE, ShardState.FAILED))
    count(tx, ((one.job_id, one.tasks_done, one.tasks_failed) for one in over))


def count(tx: Transaction, ended: Iterable[tuple[int, int, int]]) -> None:
    """Count shards that have ended, each as its job, its saved and its failed tasks; end the jobs that have no more."""
    of_job = tuple(ended)
    if of_job:
        end(tx, carry_out(tx, counting(tx, of_job)))


def counting(tx: Transaction, ended: Iterable[tuple[int, int, int]]) -> Write:
    """Lock the jobs, and :func:`count`; returns rows for :func:`end`."""
    sums: dict[int, dict[str, int]] = {}
    for job_id, done, failed in ended:
        row = sums.setdefault(job_id, {"job": job_id, "ended": 0, "done": 0, "failed": 0})
        row["ended"] += 1
        row["done"] += done
        row["failed"] += failed
    return Write(_counting, *asked(tx, "counted", list(sums.values())))


def end(tx: Transaction, counted: Iterable[Row[Any]]) -> None:
    """End those of the jobs that have no shard left."""
    for over in sorted((one for one in counted if not one.shards_left), key=attrgetter("id")):
        reason = f"{over.tasks_failed} of {over.tasks} tasks failed" if over.tasks_failed else None
        move_jobs(tx, states.ended(over.tasks_failed), [over.id], reason=reason)


def _counting(form: Form, turn: ColumnElement[bool]) -> Update:
    rows = given(form, "counted", job=BigInteger(), ended=Integer(), done=Integer(), failed=Integer())
    counted = locked(job, rows, job.c.id == rows.c.job, turn)
    sums = {
        "shards_left": job.c.shards_left - counted.c.ended,
        "tasks_done": job.c.tasks_done + counted.c.done,
        "tasks_failed": job.c.tasks_failed + counted.c.failed,
    }
    told = (job.c.id, job.c.shards_left, job.c.tasks_failed, job.c.tasks)
    return update(job).where(job.c.id == counted.c.key).values(sums).returning(*told)


def _require(tx: Transaction, job_id: int, kind: EventKind) -> JobRecord:
    found = get(tx, job_id)
    if found.state not in states.JOB[kind].sources:
        raise ConflictError(f"job {job_id} is {found.state} and cannot be {kind.removeprefix('job.')}")
    return found


def _move(tx: Transaction, job_id: int, kind: EventKind, **change: Any) -> None:
    if not move_jobs(tx, kind, [job_id], **change):
        _require(tx, job_id, kind)
