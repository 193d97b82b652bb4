"""The state machine of jobs, shards, workers and pilots: tables of transitions, and the rules that pick among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from ndif_batch.queue.cluster import PilotState
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState

State = TypeVar("State", JobState, ShardState, WorkerState, PilotState)

SUSPECT_DEATHS = 2
"""A shard whose worker died this often while it was leased runs alone; one death more fails it."""

FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Transition(Generic[State]):
    """A change that the event of the same name records: legal from ``sources``, ends in one of ``targets``."""

    sources: frozenset[State]
    targets: tuple[State, ...]


def _from(sources: Iterable[State], *targets: State) -> Transition[State]:
    return Transition(frozenset(sources), targets)


_J, _S, _W, _P = JobState, ShardState, WorkerState, PilotState

JOB: Mapping[EventKind, Transition[JobState]] = {
    EventKind.JOB_HELD: _from([_J.PENDING, _J.RUNNING], _J.HELD),
    EventKind.JOB_RELEASED: _from([_J.HELD], _J.PENDING, _J.RUNNING),
    EventKind.JOB_STARTED: _from([_J.PENDING], _J.RUNNING),
    EventKind.JOB_COMPLETED: _from([_J.RUNNING, _J.HELD], _J.COMPLETED),
    EventKind.JOB_FAILED: _from([_J.RUNNING, _J.HELD], _J.FAILED),
    EventKind.JOB_CANCELLED: _from([_J.HELD, _J.PENDING, _J.RUNNING], _J.CANCELLED),
    EventKind.JOB_RETRIED: _from([_J.RUNNING, _J.FAILED], _J.PENDING, _J.RUNNING),
}

SHARD: Mapping[EventKind, Transition[ShardState]] = {
    EventKind.SHARD_LEASED: _from([_S.PENDING], _S.LEASED),
    EventKind.SHARD_DONE: _from([_S.LEASED], _S.DONE),
    EventKind.SHARD_FAILED: _from([_S.LEASED], _S.FAILED),
    EventKind.SHARD_DEFERRED: _from([_S.LEASED], _S.PENDING),
    EventKind.SHARD_RETURNED: _from([_S.LEASED], _S.PENDING),
    EventKind.SHARD_EXPIRED: _from([_S.LEASED], _S.PENDING),
    EventKind.SHARD_ORPHANED: _from([_S.LEASED], _S.PENDING),
    EventKind.SHARD_CANCELLED: _from([_S.PENDING, _S.LEASED], _S.CANCELLED),
    EventKind.SHARD_RETRIED: _from([_S.FAILED, _S.DONE], _S.PENDING),
}

WORKER: Mapping[EventKind, Transition[WorkerState]] = {
    EventKind.WORKER_RUNNING: _from([_W.STARTING, _W.LOST], _W.RUNNING),
    EventKind.WORKER_DRAINING: _from([_W.STARTING, _W.RUNNING], _W.DRAINING),
    EventKind.WORKER_STOPPED: _from([_W.STARTING, _W.RUNNING, _W.DRAINING, _W.LOST], _W.STOPPED),
    EventKind.WORKER_LOST: _from([_W.STARTING, _W.RUNNING, _W.DRAINING], _W.LOST),
}

_ACTIVE = [state for state in PilotState if not state.final]

PILOT: Mapping[EventKind, Transition[PilotState]] = {
    EventKind.PILOT_QUEUED: _from([_P.REQUESTED, _P.RUNNING, _P.DRAINING], _P.QUEUED),
    EventKind.PILOT_RUNNING: _from([_P.REQUESTED, _P.QUEUED], _P.RUNNING),
    EventKind.PILOT_DRAINING: _from([_P.RUNNING], _P.DRAINING),
    EventKind.PILOT_ENDED: _from(_ACTIVE, _P.ENDED),
    EventKind.PILOT_FAILED: _from(_ACTIVE, _P.FAILED),
}
"""A pilot that runs is queued again when its cluster preempts or requeues it."""


def started(has_started: bool) -> JobState:
    """Where a job that may run stands: ``RUNNING`` once some shard was leased."""
    return JobState.RUNNING if has_started else JobState.PENDING


def ended(tasks_failed: int) -> EventKind:
    """How a job ends whose last shard has just ended."""
    return EventKind.JOB_FAILED if tasks_failed else EventKind.JOB_COMPLETED


def failed(attempts: int, max_retries: int, retryable: bool) -> EventKind:
    """What becomes of a shard whose try number ``attempts`` (from 1) failed."""
    return EventKind.SHARD_DEFERRED if retryable and attempts <= max_retries else EventKind.SHARD_FAILED


def orphaned(deaths: int) -> EventKind:
    """What becomes of a shard whose worker died, for the ``deaths``-th time."""
    return EventKind.SHARD_FAILED if deaths > SUSPECT_DEATHS else EventKind.SHARD_ORPHANED


def suspect(deaths: int) -> bool:
    """Whether a shard must run alone, because it may be what kills its workers."""
    return deaths >= SUSPECT_DEATHS


def backoff(attempts: int) -> timedelta:
    """How long a shard waits after its failed try number ``attempts`` (from 1): doubling, up to five minutes."""
    doublings: int = 2 ** min(attempts - 1, 30)
    return min(FIRST_BACKOFF * doublings, LONGEST_BACKOFF)
