"""Turns rows into records, and writes states into SQL such that partial indexes apply."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, literal, literal_column, select

from ndif_batch.queue.records import EventRecord, JobRecord, ModelRecord, ShardRecord, ShardState, WorkerRecord
from ndif_batch.queue.tables import graph, job, shard

_NONE = literal(0, literal_execute=True)


def state_in(column: ColumnElement[Any], states: Collection[Any]) -> ColumnElement[bool]:
    """``column`` is one of ``states``, as literals: an index with a WHERE is not used for bound values."""
    written: list[ColumnElement[Any]] = [literal_column(repr(state.value)) for state in sorted(states)]
    return column == written[0] if len(written) == 1 else column.in_(written)


def with_failed_tasks(job_id: int) -> ColumnElement[bool]:
    """The shards of a job that failed or hold failed tasks."""
    return (shard.c.job_id == job_id) & (shard.c.tasks_failed > _NONE)


def job_query() -> Select[Any]:
    """Jobs with their graph and, as ``progress``, the tasks done inside shards that are still leased."""
    progress = (
        select(func.coalesce(func.sum(shard.c.tasks_done), 0))
        .where(shard.c.job_id == job.c.id, state_in(shard.c.state, [ShardState.LEASED]), shard.c.tasks_done > _NONE)
        .correlate(job)
        .scalar_subquery()
    )
    columns = [column for column in job.c if column is not job.c.shards_left]
    return select(*columns, graph.c.body.label("graph"), progress.label("progress")).join(graph)


def job_record(row: RowMapping) -> JobRecord:
    """A job from a row of :func:`job_query`."""
    fields = dict(row)
    fields["tasks_done"] += int(fields.pop("progress"))
    fields["tile"], fields["after"] = tuple(fields["tile"]), tuple(fields["after"] or ())
    return JobRecord(**fields)


def shard_records(rows: Iterable[RowMapping]) -> list[ShardRecord]:
    """Shards from whole rows of their table."""
    return [ShardRecord(**dict(row)) for row in rows]


def worker_record(row: RowMapping) -> WorkerRecord:
    """A worker from a whole row of its table."""
    return WorkerRecord(**{name: value for name, value in row.items() if name != "key"})


def model_record(row: RowMapping) -> ModelRecord:
    """A model from a whole row of its table."""
    return ModelRecord(**dict(row))


def event_record(row: RowMapping) -> EventRecord:
    """An event from a whole row of its table."""
    return EventRecord(**dict(row))
