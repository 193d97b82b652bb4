"""The state machine and the choice of shards, as pure functions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.queue import states
from ndif_batch.queue.choosing import Candidate, choose
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState

candidates = st.builds(Candidate, st.integers(0, 10**6), st.integers(0, 300), st.sampled_from([0, 0, 0, 1, 2]))


def test_every_event_of_a_job_shard_or_worker_is_a_transition_or_a_beginning() -> None:
    beginnings = {
        EventKind.MODEL_ADDED,
        EventKind.JOB_SUBMITTED,
        EventKind.WORKER_REGISTERED,
        EventKind.PILOT_REQUESTED,
        EventKind.USER_CHANGED,
        EventKind.SETTING_CHANGED,
    }
    assert {*states.JOB, *states.SHARD, *states.WORKER, *states.PILOT} == set(EventKind) - beginnings


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


def test_the_head_goes_even_over_the_budget_and_smaller_ones_fill_the_rest() -> None:
    waiting = [Candidate(1, 60), Candidate(2, 50), Candidate(3, 40), Candidate(4, 0)]
    assert choose(waiting, 100, held=0) == [1, 3, 4]
    assert choose(waiting, 1, held=5) == [1]
    assert choose([], 100, held=0) == []


def test_a_suspect_head_goes_alone_or_not_at_all() -> None:
    waiting = [Candidate(1, 1, deaths=2), Candidate(2, 1)]
    assert choose(waiting, 100, held=0) == [1]
    assert choose(waiting, 100, held=1) == []


@given(st.lists(candidates, min_size=1, max_size=20, unique_by=lambda one: one.shard_id), st.integers(1, 500))
def test_a_choice_keeps_the_order_the_budget_and_the_quarantine(waiting: list[Candidate], budget: int) -> None:
    chosen = choose(waiting, budget, held=0)
    of = {one.shard_id: one for one in waiting}
    assert chosen[0] == waiting[0].shard_id
    assert chosen == [one.shard_id for one in waiting if one.shard_id in set(chosen)]
    if len(chosen) > 1:
        assert sum(of[shard_id].tokens for shard_id in chosen) <= budget
        assert not any(states.suspect(of[shard_id].deaths) for shard_id in chosen)
