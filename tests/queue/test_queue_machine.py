"""The queue agrees with a pure model of itself, whatever is asked of it in whatever order."""

from __future__ import annotations

from conftest import HandClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from pure_queue import PureJob, PureQueue, PureShard
from queue_samples import MODEL, job_spec, new_worker

from ndif_batch.errors import ConflictError
from ndif_batch.queue.records import Lease, TaskFailure
from ndif_batch.queue.store import Queue

SECONDS = 60.0


class QueueMachine(RuleBasedStateMachine):
    """Every rule does one thing to both and compares what they answer; afterwards every row must agree."""

    jobs = Bundle("jobs")
    workers = Bundle("workers")
    leases = Bundle("leases")

    queue: Queue
    clock: HandClock

    def __init__(self) -> None:
        super().__init__()
        self.pure = PureQueue()

    def teardown(self) -> None:
        for job in self.pure.jobs.values():
            if not self.queue.job(job.id).state.final:
                self.queue.cancel(job.id, "teardown")
        for worker in self.pure.workers:
            self.queue.stop_worker(worker)

    @rule(
        target=jobs,
        shards=st.integers(1, 4),
        each=st.integers(1, 3),
        priority=st.integers(0, 1),
        tokens=st.integers(0, 5),
        retries=st.integers(0, 2),
        hold=st.booleans(),
    )
    def submit(self, shards: int, each: int, priority: int, tokens: int, retries: int, hold: bool) -> int:
        spec = job_spec(shards, each, priority=priority, tokens_per_task=tokens, max_retries=retries, hold=hold)
        job = self.queue.submit(spec)
        state = "HELD" if hold else "PENDING"
        pure = PureJob(job.id, priority, tokens, retries, [PureShard(each) for _ in range(shards)], state)
        self.pure.jobs[job.id] = pure
        return job.id

    @rule(target=workers)
    def register(self) -> int:
        worker = new_worker(self.queue)
        self.pure.workers[worker] = ("STARTING", self.pure.now + 1800)
        return worker

    @rule(target=leases, worker=workers, tokens=st.integers(1, 30), shards=st.integers(1, 6))
    def lease(self, worker: int, tokens: int, shards: int) -> object:
        leases = self.queue.lease(worker, MODEL.name, tokens, SECONDS, shards)
        expected = self.pure.lease(worker, tokens, SECONDS, shards)
        assert [(lease.job.id, lease.shard.index) for lease in leases] == expected
        return multiple(*leases)

    @rule(worker=workers, held=st.lists(leases, max_size=4))
    def heartbeat(self, worker: int, held: list[Lease]) -> None:
        keys = {lease.shard.id: (lease.job.id, lease.shard.index) for lease in held}
        reply = self.queue.heartbeat(worker, SECONDS, dict.fromkeys(keys, 1))
        assert {keys[shard] for shard in reply.lost} == self.pure.heartbeat(worker, SECONDS, set(keys.values()))

    @rule(lease=leases, failed=st.integers(0, 1))
    def commit(self, lease: Lease, failed: int) -> None:
        failures = [TaskFailure(lease.shard.first_task, "task", "boom")] * failed
        done = self.queue.commit(lease.shard.id, lease.shard.epoch, failures)
        assert done == self.pure.end(lease.job.id, lease.shard.index, lease.shard.epoch, "done", failed)

    @rule(lease=leases, retryable=st.booleans())
    def fail(self, lease: Lease, retryable: bool) -> None:
        done = self.queue.fail(lease.shard.id, lease.shard.epoch, "io", "boom", retryable)
        outcome = "defer" if retryable else "fail"
        assert done == self.pure.end(lease.job.id, lease.shard.index, lease.shard.epoch, outcome)

    @rule(lease=leases)
    def give_back(self, lease: Lease) -> None:
        done = self.queue.give_back(lease.shard.id, lease.shard.epoch)
        assert done == self.pure.end(lease.job.id, lease.shard.index, lease.shard.epoch, "give_back")

    @rule(job=jobs, verb=st.sampled_from(["hold", "release", "cancel", "retry", "retry"]))
    def change(self, job: int, verb: str) -> None:
        try:
            getattr(self.queue, verb)(job, "ada")
            done = True
        except ConflictError:
            done = False
        assert done == self.pure.change(job, verb)

    @rule(worker=consumes(workers))
    def stop(self, worker: int) -> None:
        self.queue.stop_worker(worker)
        self.pure.stop(worker)

    @rule(seconds=st.sampled_from([1.0, 10.0, 30.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.pure.now += seconds

    @invariant()
    def every_row_agrees(self) -> None:
        for job in self.pure.jobs.values():
            shards = [(s.state, s.epoch, s.attempts, s.deaths, s.worker_id) for s in self.queue.shards(job.id)]
            assert shards == [(s.state, s.epoch, s.attempts, s.deaths, s.worker) for s in job.shards]
            assert self.queue.job(job.id).state == job.state
            assert self.queue.job(job.id).tasks_failed == sum(s.failed for s in job.shards)
        states = {worker.id: worker.state for worker in self.queue.workers()}
        assert {worker: states[worker] for worker in self.pure.workers} == {
            worker: state for worker, (state, _) in self.pure.workers.items()
        }


def test_the_queue_agrees_with_its_pure_model(queue: Queue, clock: HandClock) -> None:
    machine = type("Machine", (QueueMachine,), {"queue": queue, "clock": clock})
    limits = settings(max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=limits)
