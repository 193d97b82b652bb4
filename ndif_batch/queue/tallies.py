"""What a lease reads of each user in place of their shards: how much they have leased, and their first waiting job.

Whoever changes either locks the user's row first, after workers, shards and jobs, and users by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, String, bindparam, case, func, or_, select

from ndif_batch.queue import billing, users
from ndif_batch.queue.cluster import FREE, Cost
from ndif_batch.queue.columns import Instant
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import ShardRecord, ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import LEASABLE, job, shard, waiting
from ndif_batch.queue.together import together

PENDING = state_in(shard.c.state, [ShardState.PENDING])
NOTHING: Mapping[str, Any] = {"job_id": None, "priority": None, "since": None, "ready_at": None}


def left(tx: Transaction, shards: Iterable[ShardRecord], costs: Mapping[int, Cost] | None = None) -> None:
    """These shards, as they are now, are not leased any more; charge what those of ``costs`` did."""
    costs = costs or {}
    by_job: dict[int, list[ShardRecord]] = defaultdict(list)
    for one in shards:
        by_job[one.job_id].append(one)
    back: dict[str, list[tuple[int, Cost]]] = defaultdict(list)
    again: dict[str, set[str]] = defaultdict(set)
    for row in _owners(tx, by_job):
        for one in by_job[row.id]:
            back[row.user].append((one.tasks * row.tokens_per_task, costs.get(one.id, FREE)))
            if one.state is ShardState.PENDING:
                again[row.model].add(row.user)
    if back:
        together(tx, billing.settling(tx, {name: billing.ended(shards) for name, shards in back.items()}))
    for model, names in sorted(again.items()):
        refresh(tx, model, names)


def changed(tx: Transaction, job_id: int) -> None:
    """Shards of a job wait now or do so no more, or it may be leased now or no more."""
    (row,) = _owners(tx, [job_id])
    users.lock(tx, [row.user])
    refresh(tx, row.model, [row.user])


def refresh(tx: Transaction, model: str, names: Collection[str]) -> None:
    """Look anew which job of each user is the first that waits for ``model``; their rows are locked."""
    for name in sorted(names):
        asked = {"model": model, "name": name, "now": tx.now}
        head = tx.connection.execute(head_query(), asked).mappings().one_or_none()
        values = NOTHING if head is None else dict(head)
        row = tx.insert(waiting).values(model=model, user=name, **values)
        known = [waiting.c.model, waiting.c.user]
        tx.connection.execute(row.on_conflict_do_update(index_elements=known, set_=values))


@cache
def head_query() -> Select[Any]:
    """The first job for ``model`` of the user ``name`` that has a waiting shard; until when all of theirs back off."""
    other = job.alias("other")
    ready = select(other.c.id).where(*_theirs(other), _has(other, PENDING, is_ready())).limit(1).scalar_subquery()
    ends = select(func.min(shard.c.ready_at)).where(shard.c.job_id == other.c.id, PENDING).correlate(other)
    soonest = select(func.min(ends.scalar_subquery())).where(*_theirs(other)).scalar_subquery()
    backoff = case((ready.is_(None), soonest), else_=None)
    return (
        select(job.c.id.label("job_id"), job.c.priority, job.c.submitted_at.label("since"), backoff.label("ready_at"))
        .where(*_theirs(job), _has(job, PENDING))
        .order_by(job.c.priority.desc(), job.c.id)
        .limit(1)
    )


def _theirs(jobs: FromClause) -> tuple[ColumnElement[bool], ...]:
    asked = (jobs.c.model == bindparam("model", type_=String), jobs.c.user == bindparam("name", type_=String))
    return *asked, state_in(jobs.c.state, LEASABLE)


def _has(jobs: FromClause, *rules: ColumnElement[bool]) -> ColumnElement[bool]:
    """EXISTS, but in a form that PostgreSQL does not turn into a join with all shards."""
    found = select(shard.c.id).where(shard.c.job_id == jobs.c.id, *rules).limit(1).correlate(jobs)
    return found.scalar_subquery().is_not(None)


def is_ready() -> ColumnElement[bool]:
    """Whether a shard is in no backoff at ``now``."""
    return or_(shard.c.ready_at.is_(None), shard.c.ready_at <= bindparam("now", type_=Instant))


def _owners(tx: Transaction, job_ids: Collection[int]) -> Iterable[Any]:
    if not job_ids:
        return ()
    query = select(job.c.id, job.c.user, job.c.model, job.c.tokens_per_task).where(job.c.id.in_(job_ids))
    return tx.connection.execute(query).all()
