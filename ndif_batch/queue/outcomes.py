"""Takes the outcome of leased shards: done, failed or given back, if their epoch is still the current one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, insert, select

from ndif_batch.errors import UsageError
from ndif_batch.queue import billing, bulk, checks, jobs, states, tallies, workers
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, ShardRecord, ShardState, TaskFailure
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.sets import is_one_of
from ndif_batch.queue.tables import job, shard, task_error, worker
from ndif_batch.queue.together import carry_out, together
from ndif_batch.queue.transitions import move_shards

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


def commit(tx: Transaction, finished: Sequence[Finished]) -> set[int]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.commit`."""
    held = {row.id: row for row in tx.connection.execute(_owned(), {"ids": {one.shard_id for one in finished}}).all()}
    told = {one.shard_id: one for one in reversed(finished) if _is_current(held, one.shard_id, one.epoch)}
    for one in told.values():
        if one.failures:
            _check(held[one.shard_id], one.failures)
    if told:
        _end(tx, [(held[shard_id], one) for shard_id, one in told.items()])
    return set(told) | _done_before(tx, [one for one in finished if one.shard_id not in told])


@cache
def _owned() -> Select[Any]:
    """Shards that are leased, and whose they are; locked in order, after their workers."""
    holders = select(shard.c.worker_id).where(is_one_of(shard.c.id))
    locked = select(worker.c.id).where(worker.c.id.in_(holders)).order_by(worker.c.id)
    holder = locked.with_for_update(key_share=True).cte("holder")
    its_own = (shard.c.id, shard.c.job_id, shard.c.worker_id, shard.c.epoch, shard.c.first_task, shard.c.tasks)
    query = select(*its_own, job.c.user, job.c.tokens_per_task).join_from(shard, job)
    leased = query.join(holder, shard.c.worker_id == holder.c.id).where(is_one_of(shard.c.id))
    return leased.order_by(shard.c.id).with_for_update(key_share=True, of=shard)


def _end(tx: Transaction, ended: Sequence[tuple[Row[Any], Finished]]) -> None:
    """End shards that are locked, and what follows for failed tasks, checks, workers, jobs and users."""
    checks.keep(tx, [(row, one.check) for row, one in ended])
    errors = [
        {"job_id": row.job_id, "shard_id": row.id, **asdict(failure)} for row, one in ended for failure in one.failures
    ]
    if errors:
        tx.connection.execute(insert(task_error), errors)
    of_user: dict[str, list[tuple[int, Cost]]] = defaultdict(list)
    for row, one in ended:
        of_user[row.user].append((row.tasks * row.tokens_per_task, one.cost))
    counting = jobs.counting(tx, [(row.job_id, row.tasks - len(one.failures), len(one.failures)) for row, one in ended])
    writes = [
        counting,
        *bulk.ending(tx, [(row, len(one.failures)) for row, one in ended]),
        *workers.counting(tx, [(row.worker_id, one.cost) for row, one in ended]),
        *billing.settling(tx, {name: billing.ended(costs) for name, costs in of_user.items()}),
    ]
    jobs.end(tx, together(tx, writes))


def fail(tx: Transaction, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.fail`."""
    held = _held(tx, shard_id, epoch)
    if held is None:
        return False
    for write in workers.counting(tx, [(held.worker_id or 0, cost)]):
        carry_out(tx, write)
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


def _check(held: Row[Any], failures: Sequence[TaskFailure]) -> None:
    tasks = [failure.task for failure in failures]
    inside = range(held.first_task, held.first_task + held.tasks)
    wrong = next((task for task in tasks if task not in inside), None)
    if wrong is not None:
        raise UsageError(f"task {wrong} is not in shard {held.id}, which holds {inside.start} to {inside.stop - 1}")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"a task of shard {held.id} is reported as failed twice")
