"""Leases are ordered, fill a budget, run out, and are fenced by their epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState, Lease, ShardRecord, ShardState, TaskFailure, WorkerState
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import ALL, MODEL, SECONDS, indices, job_spec, kinds, new_worker, take


def shard_of(queue: Queue, lease: Lease) -> ShardRecord:
    return next(shard for shard in queue.shards(lease.job.id) if shard.id == lease.shard.id)


def kill_worker(queue: Queue, clock: HandClock) -> list[Lease]:
    """A new worker takes one shard and is never heard of again; what it held."""
    leases = take(queue, new_worker(queue))
    clock.forward(SECONDS)
    return leases


def test_a_lease_carries_everything_needed_to_run_the_shard(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec())
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    assert (lease.shard.state, lease.shard.epoch, lease.shard.worker_id) == (ShardState.LEASED, 1, worker)
    assert lease.shard.lease_until is not None
    assert (lease.shard.lease_until - clock.now).total_seconds() == SECONDS
    assert lease.shard == shard_of(queue, lease)
    assert lease.job == queue.job(job.id)
    assert lease.job.graph == job.graph


def test_higher_priority_goes_first_then_older_jobs_then_earlier_shards(queue: Queue) -> None:
    old = queue.submit(job_spec(shards=2)).id
    young = queue.submit(job_spec(shards=1)).id
    urgent = queue.submit(job_spec(shards=2, priority=5)).id
    leases = take(queue, new_worker(queue), 10)
    assert [(lease.job.id, lease.shard.index) for lease in leases] == [
        (urgent, 0),
        (urgent, 1),
        (old, 0),
        (old, 1),
        (young, 0),
    ]


def test_a_lease_fills_its_token_budget_over_jobs_of_its_model(queue: Queue) -> None:
    large = queue.submit(job_spec(shards=3, each=10, tokens_per_task=5)).id
    small = queue.submit(job_spec(shards=2, each=10, tokens_per_task=2)).id
    leases = queue.lease(new_worker(queue), MODEL.name, 120, SECONDS)
    assert [(lease.job.id, lease.shard.index) for lease in leases] == [(large, 0), (large, 1), (small, 0)]


def test_a_shard_over_the_budget_is_leased_all_the_same(queue: Queue) -> None:
    queue.submit(job_spec())
    assert indices(queue.lease(new_worker(queue), MODEL.name, 1, SECONDS)) == [0]


def test_other_models_and_held_jobs_are_left_alone(queue: Queue) -> None:
    queue.submit(job_spec(hold=True))
    worker = new_worker(queue)
    assert take(queue, worker) == []
    queue.submit(job_spec())
    assert queue.lease(worker, "other", ALL, SECONDS) == []


def test_no_shard_is_leased_twice(queue: Queue) -> None:
    queue.submit(job_spec(shards=5))
    first, second = new_worker(queue), new_worker(queue)
    assert indices(take(queue, first, 3)) == [0, 1, 2]
    assert indices(take(queue, second, 3)) == [3, 4]
    assert take(queue, first, 3) == []


def test_a_commit_counts_once(queue: Queue) -> None:
    job = queue.submit(job_spec())
    (lease,) = take(queue, new_worker(queue))
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)]) == {lease.shard.id}
    again = [Finished(lease.shard.id, lease.shard.epoch, [TaskFailure(0, "task", "late")])]
    assert queue.commit(again) == {lease.shard.id}
    assert (queue.job(job.id).tasks_done, queue.job(job.id).tasks_failed) == (10, 0)


def test_shards_are_committed_together_and_those_that_are_no_longer_the_worker_s_do_not_count(
    queue: Queue, clock: HandClock
) -> None:
    queue.submit(job_spec(shards=2, each=10))
    second = queue.submit(job_spec(shards=2, each=3, user="bob"))
    worker = new_worker(queue)
    leases = take(queue, worker, 4)
    late = leases[0]
    queue.give_back(late.shard.id, late.shard.epoch)
    failure = TaskFailure(3, "task", "boom")
    finished = [Finished(one.shard.id, one.shard.epoch, cost=Cost(1.0, 10)) for one in leases]
    finished[-1] = replace(finished[-1], failures=[failure])
    counted = queue.commit([*finished, finished[-1], Finished(99, 1)])
    assert counted == {one.shard.id for one in leases[1:]}
    assert [(job.id, job.state, job.tasks_done, job.tasks_failed) for job in queue.jobs()] == [
        (second.id, JobState.FAILED, 5, 1),
        (late.job.id, JobState.RUNNING, 10, 0),
    ]
    assert queue.failures(second.id) == [failure]
    assert {one.user: one.cost for one in queue.usage_of()} == {"ada": Cost(1.0, 10), "bob": Cost(2.0, 20)}
    assert (queue.workers()[0].gpu_seconds, queue.workers()[0].tokens) == (3.0, 30)


def test_of_shards_committed_together_one_wrong_failure_refuses_all(queue: Queue) -> None:
    job = queue.submit(job_spec())
    first, second = take(queue, new_worker(queue), 2)
    wrong = Finished(second.shard.id, second.shard.epoch, [TaskFailure(0, "task", "not mine")])
    with pytest.raises(UsageError, match="task 0 is not in shard"):
        queue.commit([Finished(first.shard.id, first.shard.epoch), wrong])
    assert {one.state for one in queue.shards(job.id)[:2]} == {ShardState.LEASED}


def test_a_late_commit_with_an_old_epoch_is_refused(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=1))
    sleeper = new_worker(queue)
    (old,) = take(queue, sleeper)
    clock.forward(SECONDS)
    (new,) = take(queue, new_worker(queue))
    assert (new.shard.id, new.shard.epoch) == (old.shard.id, 2)
    assert not queue.commit([Finished(old.shard.id, old.shard.epoch)])
    assert not queue.fail(old.shard.id, old.shard.epoch, "io", "late", retryable=False)
    assert not queue.give_back(old.shard.id, old.shard.epoch)
    assert queue.heartbeat(sleeper, SECONDS, {old.shard.id: 9}).lost == (old.shard.id,)
    assert shard_of(queue, new).tasks_done == 0
    assert queue.commit([Finished(new.shard.id, new.shard.epoch)])


def test_a_commit_after_the_lease_ran_out_counts_if_nobody_took_the_shard(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=1))
    (lease,) = take(queue, new_worker(queue))
    clock.forward(10 * SECONDS)
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.job(job.id).state is JobState.COMPLETED


def test_a_heartbeat_renews_and_moves_progress_inside_a_shard(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec())
    worker, other = new_worker(queue), new_worker(queue)
    first, second = take(queue, worker, 2)
    clock.forward(SECONDS - 1)
    reply = queue.heartbeat(worker, SECONDS, {first.shard.id: 4, second.shard.id: 99})
    assert (reply.lost, reply.drain) == ((), False)
    assert queue.job(job.id).tasks_done == 14
    assert queue.jobs()[0].tasks_done == 14
    clock.forward(SECONDS - 1)
    assert indices(take(queue, other, 9)) == [2, 3]
    assert queue.commit([Finished(first.shard.id, first.shard.epoch)])
    assert queue.job(job.id).tasks_done == 20


def test_a_heartbeat_renews_only_what_it_names(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=2))
    worker = new_worker(queue)
    first, second = take(queue, worker, 2)
    clock.forward(SECONDS / 2)
    queue.heartbeat(worker, SECONDS, {first.shard.id: 1})
    clock.forward(SECONDS / 2)
    (again,) = take(queue, new_worker(queue), 2)
    assert (again.shard.id, again.shard.attempts, again.shard.deaths) == (second.shard.id, 0, 0)
    assert "shard.expired" in kinds(queue, again.job.id)


def test_an_expired_lease_of_a_silent_worker_comes_back_and_loses_its_progress(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=1))
    dead = new_worker(queue)
    (lease,) = take(queue, dead)
    queue.heartbeat(dead, SECONDS, {lease.shard.id: 7})
    clock.forward(SECONDS)
    queue.lease(new_worker(queue), "other model", ALL, SECONDS)
    back = shard_of(queue, lease)
    assert (back.state, back.tasks_done, back.attempts, back.deaths) == (ShardState.PENDING, 0, 1, 1)
    assert queue.job(job.id).tasks_done == 0
    lost = next(worker for worker in queue.workers() if worker.id == dead)
    assert (lost.state, lost.reason) == (WorkerState.LOST, "no heartbeat for longer than its lease")


def test_a_lost_worker_that_speaks_again_goes_on(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec())
    sleeper = new_worker(queue)
    take(queue, sleeper)
    clock.forward(SECONDS)
    take(queue, new_worker(queue))
    assert not queue.heartbeat(sleeper, SECONDS, {}).drain
    assert next(worker for worker in queue.workers() if worker.id == sleeper).state is WorkerState.RUNNING
    assert indices(take(queue, sleeper)) == [1]


def test_giving_back_and_stopping_count_no_attempt(queue: Queue) -> None:
    queue.submit(job_spec(shards=2))
    worker = new_worker(queue)
    first, second = take(queue, worker, 2)
    assert queue.give_back(first.shard.id, first.shard.epoch)
    queue.stop_worker(worker)
    queue.stop_worker(worker)
    assert [(s.state, s.attempts) for s in queue.shards(first.job.id)] == [(ShardState.PENDING, 0)] * 2
    assert take(queue, worker) == []
    assert not queue.commit([Finished(second.shard.id, second.shard.epoch)])
    assert queue.workers()[0].state is WorkerState.STOPPED


def test_a_worker_that_is_gone_for_outer_reasons_counts_no_attempt(queue: Queue) -> None:
    queue.submit(job_spec(shards=1))
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    queue.lose_worker(worker, died=False, reason="node failed", actor="slurm")
    assert shard_of(queue, lease).attempts == 0
    (lease,) = take(queue, worker := new_worker(queue))
    queue.lose_worker(worker, died=True, reason="killed by signal 9", actor="slurm")
    assert (shard_of(queue, lease).attempts, shard_of(queue, lease).deaths) == (1, 1)
    assert "worker died: killed by signal 9" in str(queue.events(lease.job.id)[-1].detail)


def test_a_draining_worker_gets_nothing_and_is_told(queue: Queue) -> None:
    queue.submit(job_spec())
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    queue.drain_worker(worker, "root")
    assert take(queue, worker) == []
    assert queue.heartbeat(worker, SECONDS, {lease.shard.id: 1}).drain
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])


def test_a_worker_starts_with_its_first_lease(queue: Queue) -> None:
    worker = new_worker(queue)
    queue.heartbeat(worker, SECONDS, {})
    assert queue.workers()[0].state is WorkerState.STARTING
    take(queue, worker)
    assert queue.workers()[0].state is WorkerState.RUNNING


def test_a_worker_of_an_unknown_id_or_model_is_refused(queue: Queue) -> None:
    with pytest.raises(NotFoundError, match="there is no worker 99"):
        take(queue, 99)
    with pytest.raises(NotFoundError, match="there is no model 'gpt'"):
        queue.register_worker("gpt", "node1", 1)


def test_retryable_failures_wait_longer_each_time_until_none_is_left(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=1, max_retries=2))
    worker = new_worker(queue)
    for wait in (5, 10):
        (lease,) = take(queue, worker)
        assert queue.fail(lease.shard.id, lease.shard.epoch, "io", "stale handle", retryable=True)
        clock.forward(wait - 0.001)
        assert take(queue, worker) == []
        clock.forward(0.001)
    (lease,) = take(queue, worker)
    assert (lease.shard.epoch, lease.shard.attempts) == (3, 2)
    assert queue.fail(lease.shard.id, lease.shard.epoch, "io", "stale handle", retryable=True)
    failed = shard_of(queue, lease)
    assert (failed.state, failed.code, failed.reason) == (ShardState.FAILED, "io", "stale handle")
    assert queue.job(job.id).state is JobState.FAILED


def test_a_failure_that_cannot_be_retried_is_not(queue: Queue) -> None:
    queue.submit(job_spec())
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    assert queue.fail(lease.shard.id, lease.shard.epoch, "graph", "wrong", retryable=False)
    assert indices(take(queue, worker, 9)) == [1, 2, 3]


def test_a_shard_that_killed_two_workers_runs_alone_and_fails_with_the_third(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=2, max_retries=0))
    for _ in range(2):
        assert indices(kill_worker(queue, clock)) == [0]
    (well,) = take(queue, new_worker(queue), 9)
    assert well.shard.index == 1
    assert queue.commit([Finished(well.shard.id, well.shard.epoch)])
    assert indices(take(queue, new_worker(queue), 9)) == [0]
    clock.forward(SECONDS)
    assert take(queue, new_worker(queue), 9) == []
    failed = queue.shards(job.id)[0]
    assert (failed.state, failed.deaths, failed.code) == (ShardState.FAILED, 3, "worker_died")
    assert failed.reason == "it killed 3 workers, the last one alone: no heartbeat for longer than its lease"


def test_a_suspect_that_runs_well_alone_is_done(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=1))
    kill_worker(queue, clock)
    kill_worker(queue, clock)
    (lease,) = take(queue, new_worker(queue))
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.job(job.id).state is JobState.COMPLETED


def test_a_suspect_waits_for_a_worker_that_holds_nothing_and_bars_it_for_others(queue: Queue, clock: HandClock) -> None:
    suspect = queue.submit(job_spec(shards=1)).id
    kill_worker(queue, clock)
    kill_worker(queue, clock)
    worker = new_worker(queue)
    urgent = queue.submit(job_spec(shards=2, priority=1)).id
    first = take(queue, worker, 1)
    assert [lease.job.id for lease in first] == [urgent]
    assert [lease.job.id for lease in take(queue, worker, 9)] == [urgent]
    assert take(queue, worker, 9) == []
    alone = new_worker(queue)
    assert [lease.job.id for lease in take(queue, alone, 9)] == [suspect]
    queue.submit(job_spec(shards=1))
    assert take(queue, alone, 9) == []


def test_retry_forgives_deaths(queue: Queue, clock: HandClock) -> None:
    job = queue.submit(job_spec(shards=1))
    for _ in range(3):
        kill_worker(queue, clock)
    take(queue, new_worker(queue))
    assert queue.job(job.id).state is JobState.FAILED
    queue.retry(job.id, "ada")
    (lease,) = take(queue, new_worker(queue))
    assert (lease.shard.attempts, lease.shard.deaths, lease.shard.epoch) == (0, 0, 4)


HOUR = 3600.0


def test_leases_of_a_worker_that_died_while_the_clock_was_ahead_run_out_once_it_is_right(
    queue: Queue, clock: HandClock
) -> None:
    queue.submit(job_spec(shards=2))
    clock.forward(HOUR)
    (lease,) = take(queue, new_worker(queue))
    clock.forward(-HOUR)
    other = new_worker(queue)
    assert len(take(queue, other, 10)) == 1
    assert take(queue, other) == []
    clock.forward(SECONDS - 1)
    queue.heartbeat(other, SECONDS, {})
    assert take(queue, other) == []
    clock.forward(1)
    (again,) = take(queue, other)
    assert (again.shard.id, again.shard.epoch) == (lease.shard.id, 2)


def test_a_worker_that_lives_on_when_the_clock_goes_back_keeps_what_it_holds(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=1))
    clock.forward(HOUR)
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    clock.forward(-HOUR)
    for _ in range(3):
        assert take(queue, new_worker(queue)) == []
        clock.forward(SECONDS / 2)
        assert queue.heartbeat(worker, SECONDS, {lease.shard.id: 1}).lost == ()
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)]) == {lease.shard.id}
