"""Finds the shards of some users that are free, in the order in which they run, and locks them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Integer, Row, Select, String, bindparam, func, select, true

from ndif_batch.queue import tallies
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import LEASABLE, job, shard

_NAMES = ("id", "job_id", "index", "first_task", "tasks", "epoch", "attempts", "deaths")
_SHARD = tuple(shard.c[name] for name in _NAMES)
_JOB = (job.c.tokens_per_task, job.c.priority, job.c.submitted_at, job.c.state)
_MODEL = bindparam("model", type_=String)
_MOST = bindparam("most", type_=Integer)


def shards(tx: Transaction, model: str, names: Sequence[str], limit: int) -> list[Row[Any]]:
    """The first ``limit`` waiting shards of each user, locked; those that another one has locked are passed over."""
    asked = {"model": model, "now": tx.now, "most": limit}
    if tx.connection.dialect.name == "postgresql":
        return list(tx.connection.execute(lateral_query(), {**asked, "names": list(names)}).all())
    return [row for name in names for row in tx.connection.execute(user_query(), {**asked, "name": name}).all()]


@cache
def user_query() -> Select[Any]:
    """Those of the user ``name``, for SQLite: it sees that two indexes give the order, and sorts nothing."""
    return (
        select(job.c.user, *_SHARD, *_JOB)
        .join_from(shard, job)
        .where(job.c.model == _MODEL, job.c.user == bindparam("name"), state_in(job.c.state, LEASABLE))
        .where(tallies.PENDING, tallies.is_ready())
        .order_by(job.c.priority.desc(), job.c.id, shard.c.index)
        .limit(_MOST)
    )


@cache
def lateral_query() -> Select[Any]:
    """Those of all ``names``, for PostgreSQL: job by job, since it would sort all shards of a job that it joins."""
    asked = func.unnest(bindparam("names", type_=ARRAY(String))).table_valued("name").render_derived("asked")
    mine = (
        select(job.c.id.label("owner"), *_JOB)
        .where(job.c.model == _MODEL, job.c.user == asked.c.name, state_in(job.c.state, LEASABLE))
        .order_by(job.c.priority.desc(), job.c.id)
        .correlate(asked)
        .lateral("mine")
    )
    found = (
        select(*_SHARD)
        .where(shard.c.job_id == mine.c.owner, tallies.PENDING, tallies.is_ready())
        .order_by(shard.c.index)
        .limit(_MOST)
        .with_for_update(key_share=True, skip_locked=True)
        .correlate(mine)
        .lateral("found")
    )
    columns = [*found.c, *(column for column in mine.c if column.name != "owner")]
    first = select(*columns).select_from(mine.join(found, true())).limit(_MOST).lateral("first")
    return select(asked.c.name.label("user"), *first.c).select_from(asked.join(first, true()))
