"""Takes the outcome of leased shards: done, failed or given back, if their epoch is still the current one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, insert, select

from ndif_batch.errors import UsageError
from ndif_batch.queue import billing, bulk, checks, jobs, states, tallies, workers
from ndif_batch.queue.cluster import FREE, Cost
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, ShardRecord, ShardState, TaskFailure
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.sets import is_one_of
from ndif_batch.queue.tables import job, shard, task_error
from ndif_batch.queue.transitions import move_shards

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


def commit(tx: Transaction, finished: Sequence[Finished]) -> set[int]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.commit`.

    Shards are read first and locked when they are ended, each only if it is still as it was read.
    """
    held = {row.id: row for row in tx.connection.execute(_owned(), {"ids": {one.shard_id for one in finished}}).all()}
    told = {one.shard_id: one for one in reversed(finished) if _is_current(held, one.shard_id, one.epoch)}
    for one in told.values():
        if one.failures:
            _check(held[one.shard_id], one.failures)
    _count_work(tx, [(held[one.shard_id].worker_id, one.cost) for one in told.values()])
    failed = {one.shard_id: len(one.failures) for one in told.values()}
    ended = bulk.finish(tx, [held[shard_id] for shard_id in told], failed)
    _count_work(tx, [(held[one.shard_id].worker_id, -one.cost) for one in told.values() if one.shard_id not in ended])
    _settle(tx, [(held[shard_id], told[shard_id]) for shard_id in told if shard_id in ended])
    return ended | _done_before(tx, [one for one in finished if one.shard_id not in ended])


@cache
def _owned() -> Select[Any]:
    """Shards that are leased, and whose they are."""
    its_own = (shard.c.id, shard.c.job_id, shard.c.worker_id, shard.c.epoch, shard.c.first_task, shard.c.tasks)
    query = select(*its_own, job.c.user, job.c.tokens_per_task).join_from(shard, job)
    return query.where(is_one_of(shard.c.id), shard.c.worker_id.is_not(None))


def _settle(tx: Transaction, ended: Sequence[tuple[Row[Any], Finished]]) -> None:
    """What follows for failed tasks, checks, jobs and users."""
    checks.keep(tx, [(row, one.check) for row, one in ended])
    errors = [
        {"job_id": row.job_id, "shard_id": row.id, **asdict(failure)} for row, one in ended for failure in one.failures
    ]
    if errors:
        tx.connection.execute(insert(task_error), errors)
    jobs.count(tx, [(row.job_id, row.tasks - len(one.failures), len(one.failures)) for row, one in ended])
    of_user: dict[str, list[tuple[int, Cost]]] = defaultdict(list)
    for row, one in ended:
        of_user[row.user].append((row.tasks * row.tokens_per_task, one.cost))
    billing.settle(tx, {name: billing.ended(costs) for name, costs in of_user.items()})


def fail(tx: Transaction, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.fail`."""
    held = _held(tx, shard_id, epoch)
    if held is None:
        return False
    _count_work(tx, [(held.worker_id, cost)])
    attempts = held.attempts + 1
    limit = tx.connection.execute(select(job.c.max_retries).where(job.c.id == held.job_id)).scalar_one()
    kind = states.failed(attempts, limit, retryable)
    why = {"code": code, "reason": message}
    values = why if kind is EventKind.SHARD_FAILED else {"ready_at": tx.now + states.backoff(attempts)}
    moved = _move(tx, kind, held, detail=why | {"attempts": attempts}, values=values | {"attempts": attempts})
    jobs.settle(tx, moved)
    tallies.left(tx, moved, {shard_id: cost})
    return True


def give_back(tx: Transaction, shard_id: int, epoch: int) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.give_back`."""
    held = _held(tx, shard_id, epoch)
    if held is None:
        return False
    tallies.left(tx, _move(tx, EventKind.SHARD_RETURNED, held, detail={}, values={}))
    return True


def _held(tx: Transaction, shard_id: int, epoch: int) -> ShardRecord | None:
    """The shard if it is leased under this epoch, locked after its worker."""
    held = (shard.c.id == shard_id) & (shard.c.epoch == epoch) & _LEASED
    workers.lock(tx, select(shard.c.worker_id).where(held))
    rows = tx.connection.execute(select(shard).where(held).with_for_update(key_share=True)).mappings()
    return next(iter(shard_records(rows)), None)


def _done_before(tx: Transaction, finished: Sequence[Finished]) -> set[int]:
    """Those of the shards that an earlier commit ended under the same epoch: its answer was lost."""
    ids = {one.shard_id for one in finished}
    if not ids:
        return ids
    done = select(shard.c.id, shard.c.epoch).where(shard.c.id.in_(ids), shard.c.state == ShardState.DONE)
    epochs = {row.id: row.epoch for row in tx.connection.execute(done)}
    return {one.shard_id for one in finished if epochs.get(one.shard_id) == one.epoch}


def _is_current(held: Mapping[int, Row[Any]], shard_id: int, epoch: int) -> bool:
    return shard_id in held and held[shard_id].epoch == epoch


def _move(
    tx: Transaction, kind: EventKind, held: ShardRecord, detail: Mapping[str, Any], values: Mapping[str, Any]
) -> list[ShardRecord]:
    actor = workers.name(held.worker_id or 0)
    return move_shards(tx, kind, shard.c.id == held.id, actor=actor, detail=detail, values=values)


def _count_work(tx: Transaction, spent: Iterable[tuple[int | None, Cost]]) -> None:
    by_worker: dict[int, list[Cost]] = defaultdict(list)
    for worker_id, cost in spent:
        if worker_id is not None and cost != FREE:
            by_worker[worker_id].append(cost)
    for worker_id, costs in sorted(by_worker.items()):
        workers.count(tx, worker_id, Cost.total(costs))


def _check(held: Row[Any], failures: Sequence[TaskFailure]) -> None:
    tasks = [failure.task for failure in failures]
    inside = range(held.first_task, held.first_task + held.tasks)
    wrong = next((task for task in tasks if task not in inside), None)
    if wrong is not None:
        raise UsageError(f"task {wrong} is not in shard {held.id}, which holds {inside.start} to {inside.stop - 1}")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"a task of shard {held.id} is reported as failed twice")
