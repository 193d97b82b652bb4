"""What a dashboard sums up over many rows: jobs by model and state, bytes of results, and whether anything changed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.figures import ArchiveFigures, EventFilter, Held, JobFigures, JobFilter, Pulse
from ndif_batch.queue.records import EventRecord, JobRecord, ShardState, WorkerRecord
from ndif_batch.queue.rows import event_record, job_query, job_record, state_in, worker_record
from ndif_batch.queue.tables import ALIVE, event, job, shard, worker
from ndif_batch.queue.transitions import SYSTEM

MACHINES = (SYSTEM, "scheduler")
"""Actors that are nobody, beside workers."""

LATELY = timedelta(hours=1)
HAS_BYTES = job.c.archive_bytes > 0


def pulse(tx: Transaction) -> Pulse:
    """Read from indexes and the workers alone, so that it can be asked every second."""
    leased, alive = state_in(shard.c.state, [ShardState.LEASED]), state_in(worker.c.state, ALIVE)
    parts = (
        select(func.coalesce(func.max(event.c.id), 0)),
        select(func.coalesce(func.sum(shard.c.tasks_done), 0)).where(leased),
        select(func.max(worker.c.heartbeat_at)).where(alive),
        select(func.coalesce(func.sum(worker.c.tokens), 0)),
    )
    newest, progress, heard_at, tokens = tx.connection.execute(
        select(*(part.scalar_subquery() for part in parts))
    ).one()
    return Pulse(int(newest), int(progress), heard_at, int(tokens))


def job_figures(tx: Transaction, user: str | None) -> list[JobFigures]:
    """The jobs of everybody, or of one user, by model and state."""
    sums = (func.sum(job.c.tasks), func.sum(job.c.tasks_done), func.sum(job.c.tasks_failed))
    query = select(job.c.model, job.c.state, func.count(), *sums).group_by(job.c.model, job.c.state)
    rows = tx.connection.execute(_of(query, user).order_by(job.c.model, job.c.state))
    return [JobFigures(model, state, *map(int, numbers)) for model, state, *numbers in rows]


def archive_figures(tx: Transaction, user: str | None) -> list[ArchiveFigures]:
    """Whose results take up how much, the most first."""
    total = func.sum(job.c.archive_bytes)
    query = select(job.c.user, func.count(), total).where(HAS_BYTES).group_by(job.c.user).order_by(total.desc())
    return [
        ArchiveFigures(owner, int(jobs), int(size)) for owner, jobs, size in tx.connection.execute(_of(query, user))
    ]


def largest_archives(tx: Transaction, user: str | None, limit: int) -> list[JobRecord]:
    """The jobs whose results take up most."""
    query = job_query().where(HAS_BYTES).order_by(job.c.archive_bytes.desc(), job.c.id.desc()).limit(limit)
    return [job_record(row) for row in tx.connection.execute(_of(query, user)).mappings()]


def jobs(tx: Transaction, wanted: JobFilter, limit: int, before: int | None) -> list[JobRecord]:
    """Jobs, newest first, as a filter wants them; ``before`` is the id to go on from."""
    query = _of(job_query(), wanted.user).order_by(job.c.id.desc()).limit(limit)
    if wanted.state is not None:
        query = query.where(job.c.state == wanted.state)
    if wanted.model is not None:
        query = query.where(job.c.model == wanted.model)
    if wanted.name is not None:
        query = query.where(job.c.name.icontains(wanted.name, autoescape=True))
    if before is not None:
        query = query.where(job.c.id < before)
    return [job_record(row) for row in tx.connection.execute(query).mappings()]


def live_workers(tx: Transaction) -> list[WorkerRecord]:
    """Workers that are alive, and those that were lost or stopped in the last hour; newest first."""
    recent = or_(state_in(worker.c.state, ALIVE), worker.c.stopped_at > tx.now - LATELY)
    rows = tx.connection.execute(select(worker).where(recent).order_by(worker.c.id.desc())).mappings()
    return [worker_record(row) for row in rows]


def held(tx: Transaction) -> dict[int, Held]:
    """What each worker that holds shards has."""
    sums = (func.count(), func.min(shard.c.lease_until))
    leased = state_in(shard.c.state, [ShardState.LEASED])
    rows = tx.connection.execute(select(shard.c.worker_id, *sums).where(leased).group_by(shard.c.worker_id))
    return {worker_id: Held(int(count), until) for worker_id, count, until in rows}


def told(tx: Transaction, wanted: EventFilter, limit: int, before: int | None) -> list[EventRecord]:
    """Events, newest first, as a filter wants them; ``before`` is the id to go on from."""
    query = select(event).order_by(event.c.id.desc()).limit(limit)
    if wanted.by_people:
        query = query.where(event.c.actor.not_like("worker %"), event.c.actor.not_in(MACHINES))
    if wanted.actor is not None:
        query = query.where(event.c.actor == wanted.actor)
    if wanted.kind is not None:
        query = query.where(event.c.kind == wanted.kind)
    if before is not None:
        query = query.where(event.c.id < before)
    return [event_record(row) for row in tx.connection.execute(query).mappings()]


def _of(query: Any, user: str | None) -> Any:
    mine: ColumnElement[bool] = job.c.user == user
    return query if user is None else query.where(mine)
