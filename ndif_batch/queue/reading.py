"""What faces show: lists of jobs, shards, failures, events and workers."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from heapq import merge
from itertools import islice
from operator import attrgetter

from sqlalchemy import func, select

from ndif_batch.errors import NotFoundError
from ndif_batch.queue import jobs
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import (
    Counts,
    EventRecord,
    JobRecord,
    JobState,
    Json,
    ShardRecord,
    ShardState,
    TaskFailure,
    WorkerRecord,
)
from ndif_batch.queue.rows import (
    event_record,
    job_query,
    job_record,
    shard_records,
    state_in,
    with_failed_tasks,
    worker_record,
)
from ndif_batch.queue.sets import is_one_of
from ndif_batch.queue.tables import event, graph, job, shard, task_error, worker


def newest_jobs(
    tx: Transaction, user: str | None, state: JobState | None, limit: int, before: int | None
) -> list[JobRecord]:
    """Jobs, newest first, of one user or state if given; ``before`` is the id to go on from."""
    query = job_query().order_by(job.c.id.desc()).limit(limit)
    if user is not None:
        query = query.where(job.c.user == user)
    if state is not None:
        query = query.where(job.c.state == state)
    if before is not None:
        query = query.where(job.c.id < before)
    return [job_record(row) for row in tx.connection.execute(query).mappings()]


def ended_between(tx: Transaction, after: datetime, until: datetime, limit: int) -> list[JobRecord]:
    """The first jobs that ended after one moment and no later than another."""
    query = job_query().where(job.c.finished_at > after, job.c.finished_at <= until).order_by(job.c.finished_at)
    return [job_record(row) for row in tx.connection.execute(query.limit(limit)).mappings()]


def graph_body(tx: Transaction, digest: str) -> Json:
    """A stored graph as JSON; ``NotFoundError`` if there is none."""
    body: Json | None = tx.connection.scalar(select(graph.c.body).where(graph.c.digest == digest))
    if body is None:
        raise NotFoundError(f"there is no graph {digest}")
    return body


def shards(tx: Transaction, job_id: int, limit: int | None, after: int) -> list[ShardRecord]:
    """The shards of a job in order; ``after`` is the index to go on from."""
    jobs.get(tx, job_id)
    query = select(shard).where(shard.c.job_id == job_id, shard.c.index > after).order_by(shard.c.index).limit(limit)
    return shard_records(tx.connection.execute(query).mappings())


def failures(tx: Transaction, job_id: int, limit: int, after: int) -> list[TaskFailure]:
    """The first ``limit`` failed tasks beyond ``after``, by task; those of a failed shard each tell its reason."""
    jobs.get(tx, job_id)
    columns = (task_error.c.task, task_error.c.code, task_error.c.message, task_error.c.node)
    later = (task_error.c.job_id == job_id) & (task_error.c.task > after)
    single = select(*columns).where(later).order_by(task_error.c.task).limit(limit)
    whole = (
        select(shard.c.first_task, shard.c.tasks, shard.c.code, shard.c.reason)
        .where(
            with_failed_tasks(job_id),
            shard.c.state == ShardState.FAILED,
            shard.c.first_task + shard.c.tasks > after + 1,
        )
        .order_by(shard.c.first_task)
        .limit(limit)
    )
    own = (TaskFailure(*row) for row in tx.connection.execute(single))
    shards_own = (
        TaskFailure(task, code, reason)
        for first, tasks, code, reason in tx.connection.execute(whole)
        for task in range(max(first, after + 1), first + tasks)
    )
    return list(islice(merge(own, shards_own, key=attrgetter("task")), limit))


def events(tx: Transaction, job_id: int | None, limit: int, before: int | None) -> list[EventRecord]:
    """The newest ``limit`` events older than number ``before``, of one job if given, oldest first."""
    query = select(event).order_by(event.c.id.desc()).limit(limit)
    if job_id is not None:
        jobs.get(tx, job_id)
        query = query.where(event.c.job_id == job_id)
    if before is not None:
        query = query.where(event.c.id < before)
    rows = tx.connection.execute(query).mappings().all()
    return [event_record(row) for row in reversed(rows)]


def workers(tx: Transaction, ids: Collection[int] | None, limit: int | None, before: int | None) -> list[WorkerRecord]:
    """All workers, or those of these ``ids``, newest first; ``before`` is the id to go on from."""
    query = select(worker).order_by(worker.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(worker.c.id < before)
    rows = (
        tx.connection.execute(query)
        if ids is None
        else tx.connection.execute(query.where(is_one_of(worker.c.id)), {"ids": ids})
    )
    return [worker_record(row) for row in rows.mappings()]


def counts(tx: Transaction) -> Counts:
    """The queue in numbers; jobs that have ended are counted by their own rows, their shards are not looked at."""
    by_state = select(job.c.state, func.count(), func.coalesce(func.sum(job.c.archive_bytes), 0)).group_by(job.c.state)
    jobs_by_state, archive_bytes = {}, 0
    for state, count, size in tx.connection.execute(by_state):
        jobs_by_state[state] = count
        archive_bytes += int(size)
    ended = (
        select(job.c.model, func.sum(job.c.tasks_done), func.sum(job.c.tasks_failed))
        .group_by(job.c.model)
        .order_by(job.c.model)
    )
    tasks: dict[tuple[str, ShardState], int] = {}
    for model, done, failed in tx.connection.execute(ended):
        tasks[model, ShardState.DONE] = int(done)
        tasks[model, ShardState.FAILED] = int(failed)
    still_open = (
        select(job.c.model, shard.c.state, func.sum(shard.c.tasks))
        .join_from(shard, job)
        .where(state_in(shard.c.state, [ShardState.PENDING, ShardState.LEASED]))
        .group_by(job.c.model, shard.c.state)
    )
    for model, state, count in tx.connection.execute(still_open):
        tasks[model, state] = int(count)
    return Counts(jobs_by_state, tasks, archive_bytes)
