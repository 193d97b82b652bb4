"""The state machine, as tables and pure functions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ndif_batch.queue import states
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState


def test_every_event_of_a_job_shard_or_worker_is_a_transition_or_a_beginning() -> None:
    no_transition = {
        EventKind.SHARD_DEVIATED,
        EventKind.MODEL_ADDED,
        EventKind.MODEL_REMOVED,
        EventKind.JOB_SUBMITTED,
        EventKind.JOB_PRIORITIZED,
        EventKind.RESULTS_REMOVED,
        EventKind.WORKER_REGISTERED,
        EventKind.PILOT_REQUESTED,
        EventKind.USER_CHANGED,
        EventKind.SETTING_CHANGED,
        EventKind.TOKEN_CREATED,
        EventKind.TOKEN_REVOKED,
    }
    assert {*states.JOB, *states.SHARD, *states.WORKER, *states.PILOT} == set(EventKind) - no_transition


def test_final_states_are_left_only_by_retry() -> None:
    leaving = {kind for kind, move in states.JOB.items() if any(state.final for state in move.sources)}
    assert leaving == {EventKind.JOB_RETRIED}
    assert {kind for kind, move in states.SHARD.items() if ShardState.DONE in move.sources} == {EventKind.SHARD_RETRIED}
    assert not any(ShardState.CANCELLED in move.sources for move in states.SHARD.values())
    assert not any(JobState.CANCELLED in move.sources for move in states.JOB.values())
    assert not any(WorkerState.STOPPED in move.sources for move in states.WORKER.values())


def test_only_a_lease_leads_to_leased_and_only_from_pending() -> None:
    leasing = {kind: move.sources for kind, move in states.SHARD.items() if ShardState.LEASED in move.targets}
    assert leasing == {EventKind.SHARD_LEASED: frozenset([ShardState.PENDING])}


def test_backoff_doubles_up_to_five_minutes() -> None:
    waits = [states.backoff(attempts) / timedelta(seconds=1) for attempts in (1, 2, 3, 6, 7, 10_000)]
    assert waits == [5, 10, 20, 160, 300, 300]


@pytest.mark.parametrize(
    ("attempts", "max_retries", "retryable", "kind"),
    [
        (1, 0, True, EventKind.SHARD_FAILED),
        (1, 1, True, EventKind.SHARD_DEFERRED),
        (2, 1, True, EventKind.SHARD_FAILED),
        (1, 9, False, EventKind.SHARD_FAILED),
    ],
)
def test_a_failure_is_retried_while_retries_are_left(
    attempts: int, max_retries: int, retryable: bool, kind: EventKind
) -> None:
    assert states.failed(attempts, max_retries, retryable) is kind
