"""Gives shards to workers and renews their leases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, case, update

from ndif_batch.queue import billing, bulk, choosing, clocks, jobs, states, tallies, users, workers
from ndif_batch.queue.billing import Bill
from ndif_batch.queue.choosing import Chosen, Wanted
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import HeartbeatReply, JobState, Lease, ShardState, WorkerState
from ndif_batch.queue.rows import shard_records, state_in
from ndif_batch.queue.tables import LEASABLE, shard
from ndif_batch.queue.together import together
from ndif_batch.queue.turns import Turns

_LEASED = state_in(shard.c.state, [ShardState.LEASED])


@dataclass(frozen=True, slots=True)
class Request:
    """What :meth:`ndif_batch.queue.protocol.WorkerQueue.lease` is asked."""

    worker_id: int
    model: str
    max_tokens: int
    lease_seconds: float
    max_shards: int
    held: Sequence[int] | None


def lease(tx: Transaction, request: Request, order: Turns, *, expired: bool = False) -> list[Lease] | None:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.lease`.

    None if leases have run out, or may have once the clock is right: then :func:`ndif_batch.queue.recovery.expire` must
    take them back in a transaction of its own, since this one locks further shards and jobs. ``expired`` says that this
    was done.
    """
    asking = workers.asking(tx, request.worker_id, request.model)
    leases = _lease(tx, request, asking, order) if expired or not asking.over else None
    if leases == [] and not expired and clocks.went_back(tx):
        leases = None
    if not leases:
        workers.heard(tx, request.worker_id, request.lease_seconds, ready=True)
    return leases


def heartbeat(
    tx: Transaction,
    worker_id: int,
    lease_seconds: float,
    progress: Mapping[int, int],
    device: DeviceReading | None = None,
) -> HeartbeatReply:
    """See :meth:`ndif_batch.queue.protocol.WorkerQueue.heartbeat`."""
    state = workers.heard(tx, worker_id, lease_seconds, ready=False, working=bool(progress), device=device)
    drain = state in (WorkerState.DRAINING, WorkerState.STOPPED)
    if not progress:
        return HeartbeatReply(drain=drain)
    done = case(dict(progress), value=shard.c.id)
    within = case((done < 0, 0), (done > shard.c.tasks, shard.c.tasks), else_=done)
    renewed = tx.connection.scalars(
        update(shard)
        .where(shard.c.id.in_(progress), _LEASED, shard.c.worker_id == worker_id)
        .values(lease_until=tx.now + timedelta(seconds=lease_seconds), tasks_done=within)
        .returning(shard.c.id)
    )
    return HeartbeatReply(lost=tuple(sorted(set(progress) - set(renewed))), drain=drain)


def _lease(tx: Transaction, request: Request, asking: workers.Asking, order: Turns) -> list[Lease]:
    if asking.state is not WorkerState.RUNNING:
        return []
    deaths = asking.deaths
    unheard = [shard_id for shard_id in deaths if request.held is not None and shard_id not in request.held]
    if unheard:
        workers.heard(tx, request.worker_id, request.lease_seconds, ready=True, working=True)
        return _again(tx, request, unheard)
    if asking.paused or any(states.suspect(count) for count in deaths.values()):
        return []
    pace = asking.seconds_per_token
    wanted = Wanted(request.model, request.max_tokens, request.max_shards, pace, bool(deaths))
    chosen = choosing.chosen(tx, wanted, order)
    return _take(tx, request, chosen) if chosen.looked else []


def _again(tx: Transaction, request: Request, unheard: Sequence[int]) -> list[Lease]:
    """The leases of an answer that was lost on its way, renewed."""
    renewed = (
        update(shard)
        .where(shard.c.id.in_(unheard), _LEASED, shard.c.worker_id == request.worker_id)
        .values(lease_until=tx.now + timedelta(seconds=request.lease_seconds))
        .returning(shard)
    )
    found = shard_records(tx.connection.execute(renewed).mappings())
    owners = jobs.by_id(tx, {one.job_id for one in found})
    return [Lease(one, owners[one.job_id]) for one in sorted(found, key=lambda one: one.id)]


def _take(tx: Transaction, request: Request, chosen: Chosen) -> list[Lease]:
    """Rows are locked as everywhere: workers, shards, jobs, users."""
    new = {row.job_id for row in chosen.shards if row.state is JobState.PENDING}
    started = bulk.start(tx, new)
    held = {job_id for job_id, state in jobs.lock(tx, new - started).items() if state not in LEASABLE}
    rooms = users.lock(tx, chosen.looked) if chosen.rooms else {}
    rows = list(_within(rooms, [row for row in chosen.shards if row.job_id not in held]))
    moved_on = chosen.moved_on({row.id for row in rows})
    if moved_on:
        users.lock(tx, {*moved_on, *(row.user for row in rows)})
    leases = _leased(tx, request, rows, started) if rows else []
    tallies.refresh(tx, request.model, moved_on)
    return leases


def _within(rooms: Mapping[str, int], rows: Iterable[Row[Any]]) -> Iterable[Row[Any]]:
    """Without those that would be more than their user may run: others have been leased since the user was chosen."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.user] += 1
        if row.user not in rooms or counts[row.user] <= rooms[row.user]:
            yield row


def _leased(tx: Transaction, request: Request, rows: Sequence[Row[Any]], started: Collection[int]) -> list[Lease]:
    """Lease these shards, which are locked; the worker gives a sign of life by it."""
    until = tx.now + timedelta(seconds=request.lease_seconds)
    tokens: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        tokens[row.user].append(row.tasks * row.tokens_per_task)
    writes = [
        *bulk.taking(tx, [row.id for row in rows], started, request.worker_id, until),
        *billing.serving(tx, {name: Bill(len(each), sum(each)) for name, each in tokens.items()}),
        workers.hearing(tx, request.worker_id, request.lease_seconds, ready=True, working=True),
    ]
    together(tx, writes)
    owners = jobs.by_id(tx, {row.job_id for row in rows})
    return [Lease(bulk.taken(row, request.worker_id, until), owners[row.job_id]) for row in rows]
