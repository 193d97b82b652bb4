"""Part of the conformance suite: workers register, lease, renew, fall silent and drain."""

from __future__ import annotations

import pytest

from ndif_batch.errors import NotFoundError
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.records import ShardState, WorkerState
from tests.queue.queue_samples import ALL, MODEL, SECONDS, indices, job_spec, kinds, new_worker, take
from tests.queue.worker_queue_stand import Stand, done


class Leases:
    """Who may work on what, and for how long."""

    def test_a_model_is_told_whole(self, stand: Stand) -> None:
        assert stand.queue.model(MODEL.name) == stand.admin.model(MODEL.name)

    def test_errors_come_back_as_what_they_are(self, stand: Stand) -> None:
        with pytest.raises(NotFoundError) as unknown:
            stand.queue.model("smolm2")
        assert (unknown.value.message, unknown.value.hint) == (
            "there is no model 'smolm2'",
            "did you mean 'smollm2'?",
        )
        with pytest.raises(NotFoundError, match="there is no model 'gpt'"):
            stand.queue.register_worker("gpt", "node1", 1)
        with pytest.raises(NotFoundError, match="there is no worker 99"):
            take(stand.queue, 99)
        with pytest.raises(NotFoundError, match="there is no worker 99"):
            stand.queue.stop_worker(99)

    def test_a_worker_starts_with_its_first_lease(self, stand: Stand) -> None:
        (worker,) = stand.admin.workers()
        assert (worker.id, worker.model, worker.host, worker.pid, worker.state) == (
            stand.worker,
            MODEL.name,
            "node1",
            4711,
            WorkerState.STARTING,
        )
        stand.take()
        assert stand.admin.workers()[0].state is WorkerState.RUNNING

    def test_a_worker_shows_that_its_pilot_runs(self, stand: Stand) -> None:
        stand.admin.add_pilot("p1", MODEL.name, "local", {}, actor="scheduler")
        worker = stand.queue.register_worker(MODEL.name, "node1", 1, "p1")
        assert stand.admin.pilots()[0].worker_id == worker

    def test_a_lease_carries_everything_needed_to_run_the_shard(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(key="monday", archive_bytes=7))
        (lease,) = stand.take()
        assert (lease.shard.state, lease.shard.epoch, lease.shard.worker_id) == (ShardState.LEASED, 1, stand.worker)
        assert lease.shard == stand.shard(lease)
        assert lease.job == stand.admin.job(job.id)

    def test_a_lease_fills_its_token_budget_over_jobs(self, stand: Stand) -> None:
        large = stand.admin.submit(job_spec(shards=3, tokens_per_task=5)).id
        small = stand.admin.submit(job_spec(shards=2, tokens_per_task=2)).id
        leases = stand.queue.lease(stand.worker, MODEL.name, 120, SECONDS)
        assert [(lease.job.id, lease.shard.index) for lease in leases] == [(large, 0), (large, 1), (small, 0)]

    def test_a_lease_before_a_walltime_is_one_shard_however_large(self, stand: Stand) -> None:
        stand.admin.submit(job_spec())
        assert indices(stand.queue.lease(stand.worker, MODEL.name, 1, SECONDS)) == [0]

    def test_other_models_held_jobs_and_pauses_are_left_alone(self, stand: Stand) -> None:
        held = stand.admin.submit(job_spec(hold=True))
        assert stand.take() == []
        stand.admin.release(held.id, "ada")
        assert stand.queue.lease(stand.worker, "other", ALL, SECONDS) == []
        stand.admin.pause(actor="root")
        assert stand.take() == []

    def test_no_shard_is_leased_twice(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=5))
        other = new_worker(stand.queue)
        assert indices(stand.take(3)) == [0, 1, 2]
        assert indices(take(stand.queue, other, 3)) == [3, 4]
        assert stand.take(3) == []

    def test_a_heartbeat_renews_what_it_names_and_tells_progress(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=2))
        first, second = stand.take(2)
        stand.clock.forward(SECONDS / 2)
        reply = stand.queue.heartbeat(stand.worker, SECONDS, {first.shard.id: 4})
        assert (reply.lost, reply.drain) == ((), False)
        assert stand.admin.job(job.id).tasks_done == 4
        stand.clock.forward(SECONDS / 2)
        (again,) = take(stand.queue, new_worker(stand.queue), 2)
        assert (again.shard.id, again.shard.epoch, again.shard.attempts) == (second.shard.id, 2, 0)
        assert "shard.expired" in kinds(stand.admin, job.id)

    def test_a_heartbeat_tells_of_the_device(self, stand: Stand) -> None:
        stand.queue.heartbeat(stand.worker, SECONDS, {}, DeviceReading("H100", 3 * 2**33, 80 * 2**30, 0.5))
        (worker,) = stand.admin.workers()
        assert (worker.device, worker.memory_used, worker.memory_total, worker.utilization) == (
            "H100",
            3 * 2**33,
            80 * 2**30,
            0.5,
        )

    def test_a_heartbeat_tells_which_shards_are_lost(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=1))
        other = stand.admin.submit(job_spec(shards=1))
        lost, kept = stand.take(2)
        stand.admin.cancel(job.id, "ada")
        reply = stand.queue.heartbeat(stand.worker, SECONDS, {lost.shard.id: 1, kept.shard.id: 1, 99: 1})
        assert reply.lost == (lost.shard.id, 99)
        assert stand.admin.job(other.id).tasks_done == 1

    def test_the_shards_of_a_silent_worker_come_back_and_it_may_go_on(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=2))
        (lease,) = stand.take()
        stand.clock.forward(SECONDS)
        other = new_worker(stand.queue)
        (again,) = take(stand.queue, other)
        assert (again.shard.id, again.shard.attempts, again.shard.deaths) == (lease.shard.id, 1, 1)
        assert {one.id: one.state for one in stand.admin.workers()}[stand.worker] is WorkerState.LOST
        assert not stand.queue.heartbeat(stand.worker, SECONDS, {}).drain
        assert indices(stand.take()) == [1]

    def test_a_worker_that_is_known_to_be_gone_loses_its_shards_at_once(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=1))
        (lease,) = stand.take()
        stand.admin.lose_worker(stand.worker, died=False, reason="node failed", actor="slurm")
        assert not stand.queue.commit([done(lease)])
        (again,) = take(stand.queue, new_worker(stand.queue))
        assert (again.shard.epoch, again.shard.attempts) == (2, 0)

    def test_a_draining_worker_gets_nothing_is_told_and_may_finish(self, stand: Stand) -> None:
        stand.admin.submit(job_spec())
        (lease,) = stand.take()
        stand.admin.drain_worker(stand.worker, "root")
        assert stand.take() == []
        assert stand.queue.heartbeat(stand.worker, SECONDS, {lease.shard.id: 1}).drain
        assert stand.queue.commit([done(lease)]) == {lease.shard.id}

    def test_a_stopped_worker_has_given_everything_back(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=2))
        stand.take(2)
        stand.queue.stop_worker(stand.worker)
        assert [(one.state, one.attempts) for one in stand.admin.shards(job.id)] == [(ShardState.PENDING, 0)] * 2
        assert stand.take() == []
        assert stand.queue.heartbeat(stand.worker, SECONDS, {}).drain
        assert stand.admin.workers()[0].state is WorkerState.STOPPED
