"""Takes the outcome of a leased shard: done, failed or given back, if its epoch is still the current one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import insert, select

from ndif_batch.errors import UsageError
from ndif_batch.queue import jobs, states, users, workers
from ndif_batch.queue.cluster import FREE, Cost
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, ShardRecord, ShardState, TaskFailure
from ndif_batch.queue.rows import shard_records
from ndif_batch.queue.tables import job, shard, task_error
from ndif_batch.queue.transitions import move_shards


def commit(tx: Transaction, shard_id: int, epoch: int, failures: Sequence[TaskFailure], cost: Cost) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.commit`."""
    held = _held(tx, shard_id, epoch, cost)
    if held is None:
        return False
    _check(held, failures)
    counts = {"tasks_done": held.tasks - len(failures), "tasks_failed": len(failures)}
    _end(tx, EventKind.SHARD_DONE, held, detail=counts, values=counts)
    if failures:
        owner = {"job_id": held.job_id, "shard_id": shard_id}
        tx.connection.execute(insert(task_error), [owner | asdict(failure) for failure in failures])
    _charge(tx, held, cost)
    return True


def fail(tx: Transaction, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.fail`."""
    held = _held(tx, shard_id, epoch, cost)
    if held is None:
        return False
    attempts = held.attempts + 1
    limit = tx.connection.execute(select(job.c.max_retries).where(job.c.id == held.job_id)).scalar_one()
    kind = states.failed(attempts, limit, retryable)
    why = {"code": code, "reason": message}
    values = why if kind is EventKind.SHARD_FAILED else {"ready_at": tx.now + states.backoff(attempts)}
    _end(tx, kind, held, detail=why | {"attempts": attempts}, values=values | {"attempts": attempts})
    _charge(tx, held, cost)
    return True


def give_back(tx: Transaction, shard_id: int, epoch: int) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.give_back`."""
    held = _held(tx, shard_id, epoch)
    if held is None:
        return False
    _end(tx, EventKind.SHARD_RETURNED, held, detail={}, values={})
    return True


def _held(tx: Transaction, shard_id: int, epoch: int, cost: Cost = FREE) -> ShardRecord | None:
    """The shard, locked. Rows are locked as everywhere: the worker first, then shards, jobs, users."""
    lease = (shard.c.id == shard_id) & (shard.c.epoch == epoch) & (shard.c.state == ShardState.LEASED)
    holder = None if cost == FREE else tx.connection.scalar(select(shard.c.worker_id).where(lease))
    if holder is not None:
        workers.count(tx, holder, cost)
    rows = shard_records(tx.connection.execute(select(shard).where(lease).with_for_update(key_share=True)).mappings())
    return rows[0] if rows else None


def _end(
    tx: Transaction, kind: EventKind, held: ShardRecord, detail: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    assert held.worker_id is not None
    actor = workers.name(held.worker_id)
    jobs.settle(tx, move_shards(tx, kind, shard.c.id == held.id, actor=actor, detail=detail, values=values))


def _charge(tx: Transaction, held: ShardRecord, cost: Cost) -> None:
    if cost != FREE:
        owner = select(job.c.user).where(job.c.id == held.job_id)
        users.charge(tx, tx.connection.execute(owner).scalar_one(), cost)


def _check(held: ShardRecord, failures: Sequence[TaskFailure]) -> None:
    tasks = [failure.task for failure in failures]
    inside = range(held.first_task, held.first_task + held.tasks)
    wrong = next((task for task in tasks if task not in inside), None)
    if wrong is not None:
        raise UsageError(f"task {wrong} is not in shard {held.id}, which holds {inside.start} to {inside.stop - 1}")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"a task of shard {held.id} is reported as failed twice")
