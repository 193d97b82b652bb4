"""Takes the outcome of leased shards: done, failed or given back, if their epoch is still the current one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from itertools import groupby
from operator import add
from typing import Any

from sqlalchemy import insert, select

from ndif_batch.errors import UsageError
from ndif_batch.queue import checks, jobs, states, tallies, workers
from ndif_batch.queue.cluster import FREE, Cost
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, ShardRecord, ShardState, TaskFailure
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.tables import job, shard, task_error
from ndif_batch.queue.transitions import move_shards

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


def commit(tx: Transaction, finished: Sequence[Finished]) -> set[int]:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.commit`."""
    costs = any(one.cost != FREE for one in finished)
    held = _held(tx, {one.shard_id for one in finished}, costs=costs)
    counted = {one.shard_id: one for one in reversed(finished) if _is_current(held, one.shard_id, one.epoch)}
    for one in counted.values():
        _check(held[one.shard_id], one.failures)
    _count_work(tx, [(held[one.shard_id], one.cost) for one in counted.values()])
    checks.keep(tx, [(held[one.shard_id], one.check) for one in counted.values()])
    moved = _end_done(tx, [(held[one.shard_id], len(one.failures)) for one in counted.values()])
    errors = [
        {"job_id": held[one.shard_id].job_id, "shard_id": one.shard_id, **asdict(failure)}
        for one in counted.values()
        for failure in one.failures
    ]
    if errors:
        tx.connection.execute(insert(task_error), errors)
    tallies.left(tx, moved, {one.shard_id: one.cost for one in counted.values()})
    return set(counted) | _done_before(tx, [one for one in finished if one.shard_id not in counted])


def fail(tx: Transaction, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.fail`."""
    leases = _held(tx, [shard_id], costs=cost != FREE)
    if not _is_current(leases, shard_id, epoch):
        return False
    held = leases[shard_id]
    _count_work(tx, [(held, cost)])
    attempts = held.attempts + 1
    limit = tx.connection.execute(select(job.c.max_retries).where(job.c.id == held.job_id)).scalar_one()
    kind = states.failed(attempts, limit, retryable)
    why = {"code": code, "reason": message}
    values = why if kind is EventKind.SHARD_FAILED else {"ready_at": tx.now + states.backoff(attempts)}
    moved = _move(tx, kind, [held], detail=why | {"attempts": attempts}, values=values | {"attempts": attempts})
    jobs.settle(tx, moved)
    tallies.left(tx, moved, {shard_id: cost})
    return True


def give_back(tx: Transaction, shard_id: int, epoch: int) -> bool:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.give_back`."""
    leases = _held(tx, [shard_id], costs=False)
    if not _is_current(leases, shard_id, epoch):
        return False
    tallies.left(tx, _move(tx, EventKind.SHARD_RETURNED, list(leases.values()), detail={}, values={}))
    return True


def _held(tx: Transaction, ids: Collection[int], *, costs: bool) -> dict[int, ShardRecord]:
    """Those of the shards that are leased, locked.

    Rows are locked as everywhere: workers first (if there are ``costs`` to count), then shards, jobs, users.
    """
    leased = shard.c.id.in_(ids) & _LEASED
    if costs:
        workers.lock(tx, select(shard.c.worker_id).where(leased))
    query = select(shard).where(leased).order_by(shard.c.id).with_for_update(key_share=True)
    return {one.id: one for one in shard_records(tx.connection.execute(query).mappings())}


def _done_before(tx: Transaction, finished: Sequence[Finished]) -> set[int]:
    """Those of the shards that an earlier commit ended under the same epoch: its answer was lost."""
    ids = {one.shard_id for one in finished}
    if not ids:
        return ids
    done = select(shard.c.id, shard.c.epoch).where(shard.c.id.in_(ids), shard.c.state == ShardState.DONE)
    epochs = {row.id: row.epoch for row in tx.connection.execute(done)}
    return {one.shard_id for one in finished if epochs.get(one.shard_id) == one.epoch}


def _is_current(held: Mapping[int, ShardRecord], shard_id: int, epoch: int) -> bool:
    return shard_id in held and held[shard_id].epoch == epoch


def _end_done(tx: Transaction, ended: Iterable[tuple[ShardRecord, int]]) -> list[ShardRecord]:
    """Move shards, each with its number of failures; the jobs of which they were the last end."""

    def outcome(one: tuple[ShardRecord, int]) -> tuple[int, int, int]:
        held, failures = one
        return held.worker_id or 0, held.tasks, failures

    moved: list[ShardRecord] = []
    for (_, tasks, failed), group in groupby(sorted(ended, key=outcome), key=outcome):
        counts = {"tasks_done": tasks - failed, "tasks_failed": failed}
        moved += _move(tx, EventKind.SHARD_DONE, [held for held, _ in group], detail=counts, values=counts)
    jobs.settle(tx, moved)
    return moved


def _move(
    tx: Transaction,
    kind: EventKind,
    held: Sequence[ShardRecord],
    detail: Mapping[str, Any],
    values: Mapping[str, Any],
) -> list[ShardRecord]:
    """Move shards of one worker."""
    assert held[0].worker_id is not None
    actor = workers.name(held[0].worker_id)
    chosen = shard.c.id.in_([one.id for one in held])
    return move_shards(tx, kind, chosen, actor=actor, detail=detail, values=values)


def _count_work(tx: Transaction, spent: Iterable[tuple[ShardRecord, Cost]]) -> None:
    by_worker: dict[int, list[Cost]] = {}
    for held, cost in spent:
        if cost != FREE and held.worker_id is not None:
            by_worker.setdefault(held.worker_id, []).append(cost)
    for worker_id, costs in sorted(by_worker.items()):
        workers.count(tx, worker_id, reduce(add, costs))


def _check(held: ShardRecord, failures: Sequence[TaskFailure]) -> None:
    tasks = [failure.task for failure in failures]
    inside = range(held.first_task, held.first_task + held.tasks)
    wrong = next((task for task in tasks if task not in inside), None)
    if wrong is not None:
        raise UsageError(f"task {wrong} is not in shard {held.id}, which holds {inside.start} to {inside.stop - 1}")
    if len(set(tasks)) < len(tasks):
        raise UsageError(f"a task of shard {held.id} is reported as failed twice")
