"""Part of the conformance suite: shards end under their epoch, once; and jobs with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ndif_batch.errors import UsageError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.records import JobState, Lease, ShardState, TaskFailure
from tests.queue.queue_samples import MODEL, SECONDS, indices, job_spec, new_worker, take
from tests.queue.worker_queue_stand import Stand, done

OTHER = replace(MODEL, name="other", digest="0ther")


def kill_worker(stand: Stand) -> list[Lease]:
    """A new worker takes one shard and is never heard of again; what it held."""
    leases = take(stand.queue, new_worker(stand.queue))
    stand.clock.forward(SECONDS)
    return leases


def finished_job(stand: Stand) -> int:
    """A job that the stand's worker ended, which then stopped."""
    job = stand.admin.submit(job_spec(shards=1))
    assert stand.queue.commit([done(lease) for lease in stand.take()])
    stand.queue.stop_worker(stand.worker)
    return job.id


class Outcomes:
    """Done, failed, given back; charged; ended."""

    def test_shards_are_committed_together_with_their_failures(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=2))
        first, second = stand.take(2)
        failure = TaskFailure(13, "task", "the norm is NaN ☹", node=3)
        counted = stand.queue.commit([done(first), done(second, failures=[failure])])
        assert counted == {first.shard.id, second.shard.id}
        assert stand.admin.failures(job.id) == [failure]
        ended = stand.admin.job(job.id)
        assert (ended.state, ended.tasks_done, ended.tasks_failed) == (JobState.FAILED, 19, 1)

    def test_one_wrong_failure_refuses_all_that_come_with_it(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec())
        first, second = stand.take(2)
        with pytest.raises(UsageError, match="task 0 is not in shard"):
            stand.queue.commit([done(first), done(second, failures=[TaskFailure(0, "task", "not mine")])])
        assert [one.state for one in stand.admin.shards(job.id)[:2]] == [ShardState.LEASED] * 2

    def test_nothing_under_an_old_epoch_counts(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=1))
        (old,) = stand.take()
        stand.clock.forward(SECONDS)
        (new,) = take(stand.queue, new_worker(stand.queue))
        assert (new.shard.id, new.shard.epoch) == (old.shard.id, 2)
        before = stand.everything()
        assert stand.queue.commit([done(old, cost=Cost(1.0, 1))]) == set()
        assert not stand.queue.fail(old.shard.id, 1, "io", "late", retryable=False, cost=Cost(1.0, 1))
        assert not stand.queue.give_back(old.shard.id, 1)
        assert stand.everything() == before
        assert stand.queue.heartbeat(stand.worker, SECONDS, {old.shard.id: 9}).lost == (old.shard.id,)
        assert stand.shard(new).tasks_done == 0
        assert stand.queue.commit([done(new)]) == {new.shard.id}
        assert stand.queue.commit([done(old)]) == set()

    def test_a_commit_after_the_lease_ran_out_counts_if_nobody_took_the_shard(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=1))
        (lease,) = stand.take()
        stand.clock.forward(10 * SECONDS)
        assert stand.queue.commit([done(lease)]) == {lease.shard.id}
        assert stand.admin.job(job.id).state is JobState.COMPLETED

    def test_a_shard_given_back_counts_no_attempt(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=1))
        (lease,) = stand.take()
        assert stand.queue.give_back(lease.shard.id, lease.shard.epoch)
        (again,) = stand.take()
        assert (again.shard.id, again.shard.epoch, again.shard.attempts) == (lease.shard.id, 2, 0)

    def test_retryable_failures_wait_longer_each_time_until_none_is_left(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=1, max_retries=2))
        for wait in (5, 10):
            (lease,) = stand.take()
            assert stand.queue.fail(lease.shard.id, lease.shard.epoch, "io", "stale handle", retryable=True)
            stand.clock.forward(wait - 0.001)
            assert stand.take() == []
            stand.clock.forward(0.001)
        (lease,) = stand.take()
        assert stand.queue.fail(lease.shard.id, lease.shard.epoch, "io", "stale handle", retryable=True)
        failed = stand.shard(lease)
        assert (failed.state, failed.code, failed.reason) == (ShardState.FAILED, "io", "stale handle")
        assert stand.admin.job(job.id).state is JobState.FAILED

    def test_a_failure_that_cannot_be_retried_is_not(self, stand: Stand) -> None:
        stand.admin.submit(job_spec())
        (lease,) = stand.take()
        assert stand.queue.fail(lease.shard.id, lease.shard.epoch, "graph", "wrong", retryable=False)
        assert indices(stand.take(9)) == [1, 2, 3]

    def test_a_shard_that_killed_two_workers_runs_alone_and_fails_with_the_third(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=2, max_retries=0))
        for _ in range(2):
            assert indices(kill_worker(stand)) == [0]
        well = stand.take(9)
        assert indices(well) == [1]
        assert indices(take(stand.queue, new_worker(stand.queue), 9)) == [0]
        assert stand.queue.commit([done(lease) for lease in well])
        stand.clock.forward(SECONDS)
        assert stand.take(9) == []
        failed = stand.admin.shards(job.id)[0]
        assert (failed.state, failed.deaths, failed.code) == (ShardState.FAILED, 3, "worker_died")

    def test_a_cost_is_charged_once_to_the_job_s_user_and_counted_for_the_worker(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=2))
        first, second = stand.take(2)
        for _ in range(2):
            stand.queue.commit([done(first, cost=Cost(1.5, 100, 20))])
            stand.queue.fail(second.shard.id, second.shard.epoch, "io", "late", retryable=True, cost=Cost(0.25, 1))
        (usage,) = stand.admin.usage_of("ada")
        assert usage.cost == Cost(1.75, 101, 20)
        assert (stand.admin.workers()[0].gpu_seconds, stand.admin.workers()[0].tokens) == (1.75, 101)

    def test_a_model_has_work_while_a_job_waits_or_runs(self, stand: Stand) -> None:
        assert not stand.queue.has_work(MODEL.name)
        stand.admin.submit(job_spec(shards=1, hold=True))
        assert not stand.queue.has_work(MODEL.name)
        stand.admin.submit(job_spec(shards=1))
        assert stand.queue.has_work(MODEL.name)
        assert not stand.queue.has_work("other")
        (lease,) = stand.take()
        assert stand.queue.has_work(MODEL.name)
        stand.queue.commit([done(lease)])
        assert not stand.queue.has_work(MODEL.name)

    def test_those_of_some_jobs_that_have_ended_are_told_with_their_place(self, stand: Stand) -> None:
        completed, cancelled, running = (stand.admin.submit(job_spec(shards=1)) for _ in range(3))
        stand.admin.cancel(cancelled.id, "ada")
        stand.queue.commit([done(stand.take()[0])])
        stand.take()
        told = stand.queue.ended([running.id, cancelled.id, completed.id, 99])
        assert {one.id: (one.state, one.store) for one in told} == {
            completed.id: (JobState.COMPLETED, completed.store),
            cancelled.id: (JobState.CANCELLED, cancelled.store),
        }
        assert stand.queue.ended([]) == []

    def test_an_archive_may_be_finished_by_the_next_worker_of_its_model(self, stand: Stand) -> None:
        job = finished_job(stand)
        cancelled = stand.admin.submit(job_spec())
        stand.admin.cancel(cancelled.id, "ada")
        (told,) = stand.queue.left_over(new_worker(stand.queue))
        assert (told.id, told.store) == (job, stand.admin.job(job).store)

    def test_a_job_that_just_ended_is_left_to_a_living_worker_of_its_model(self, stand: Stand) -> None:
        job = finished_job(stand)
        other, me = new_worker(stand.queue), new_worker(stand.queue)
        assert stand.queue.left_over(me) == []
        stand.admin.lose_worker(other, died=True, reason="gone", actor="slurm")
        assert [one.id for one in stand.queue.left_over(me)] == [job]

    def test_a_silent_worker_finishes_nothing(self, stand: Stand) -> None:
        job = finished_job(stand)
        stand.queue.heartbeat(new_worker(stand.queue), SECONDS, {})
        stand.clock.forward(SECONDS)
        assert [one.id for one in stand.queue.left_over(new_worker(stand.queue))] == [job]

    def test_a_job_that_ended_long_ago_waits_for_nobody(self, stand: Stand) -> None:
        job = finished_job(stand)
        stand.clock.forward(2 * 3600)
        new_worker(stand.queue)
        assert [one.id for one in stand.queue.left_over(new_worker(stand.queue))] == [job]

    def test_workers_and_jobs_of_other_models_do_not_matter(self, stand: Stand) -> None:
        job = finished_job(stand)
        stand.admin.add_model(OTHER)
        stranger = stand.queue.register_worker(OTHER.name, "node1", 1)
        assert stand.queue.left_over(stranger) == []
        assert [one.id for one in stand.queue.left_over(new_worker(stand.queue))] == [job]
