"""The queue agrees with a pure model of itself, whatever is asked of it in whatever order."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ndif_batch.errors import ConflictError
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import Lease, TaskFailure
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.pure_queue import PureJob, PureQueue, PureShard
from tests.queue.queue_samples import MODEL, job_spec, new_worker
from tests.queue.tallies_checked import check_tallies

SECONDS = 60.0
place = st.integers(0, 3)
recent = st.sampled_from([0, 0, 1, 1, 2, 3, 5, 8])


def has_leased(machine: QueueMachine) -> bool:
    return bool(machine.leases)


def pick(ids: Collection[int], which: int) -> int:
    """The ``which``-th newest id, so that most choices fall on what is still alive."""
    return sorted(ids, reverse=True)[which % len(ids)]


class QueueMachine(RuleBasedStateMachine):
    """Every rule does one thing to both and compares what they answer; afterwards every row must agree."""

    queue: Queue
    clock: HandClock

    def __init__(self) -> None:
        super().__init__()
        self.pure = PureQueue()
        self.leases: list[Lease] = []

    def teardown(self) -> None:
        check_tallies(self.queue)
        for job in self.pure.jobs.values():
            if not self.queue.job(job.id).state.final:
                self.queue.cancel(job.id, "teardown")
        for worker in self.pure.workers:
            self.queue.stop_worker(worker)

    @initialize()
    def two_jobs_and_three_workers(self) -> None:
        self.submit(shards=3, each=2, priority=0, tokens=2, retries=1, hold=False)
        self.submit(shards=1, each=3, priority=1, tokens=2, retries=0, hold=False)
        for _ in range(3):
            self.register()

    @rule(
        shards=st.integers(1, 3),
        each=st.integers(1, 3),
        priority=st.integers(0, 1),
        tokens=st.integers(0, 5),
        retries=st.integers(0, 2),
        hold=st.booleans(),
    )
    def submit(self, shards: int, each: int, priority: int, tokens: int, retries: int, hold: bool) -> None:
        spec = job_spec(shards, each, priority=priority, tokens_per_task=tokens, max_retries=retries, hold=hold)
        job = self.queue.submit(spec)
        state = "HELD" if hold else "PENDING"
        pure = PureJob(job.id, priority, tokens, retries, [PureShard(each) for _ in range(shards)], state)
        self.pure.jobs[job.id] = pure

    @rule()
    def register(self) -> None:
        worker = new_worker(self.queue)
        self.pure.workers[worker] = ("STARTING", self.pure.now + 1800)

    @rule(which=place, tokens=st.integers(1, 30), shards=st.integers(1, 6))
    def lease(self, which: int, tokens: int, shards: int) -> None:
        worker = pick(self.pure.workers, which)
        leases = self.queue.lease(worker, MODEL.name, tokens, SECONDS, shards)
        expected = self.pure.lease(worker, tokens, SECONDS, shards)
        assert [(lease.job.id, lease.shard.index) for lease in leases] == expected
        self.leases = leases + self.leases

    @rule(first=place, second=place, rounds=st.integers(1, 3))
    def workers_die(self, first: int, second: int, rounds: int) -> None:
        """Time after time, all who hold a lease are silent until it has run out, and others take over."""
        for which in [first, second, first][:rounds]:
            self.wait(SECONDS)
            self.lease(which, 30, 6)
            self.every_row_agrees()

    @rule(which=place, held=st.sets(recent, max_size=4))
    def heartbeat(self, which: int, held: set[int]) -> None:
        worker = pick(self.pure.workers, which)
        named = [lease for place, lease in enumerate(self.leases) if place in held]
        keys = {lease.shard.id: (lease.job.id, lease.shard.index) for lease in named}
        reply = self.queue.heartbeat(worker, SECONDS, dict.fromkeys(keys, 1))
        assert {keys[shard] for shard in reply.lost} == self.pure.heartbeat(worker, SECONDS, set(keys.values()))

    @precondition(has_leased)
    @rule(which=recent, failed=st.integers(0, 1))
    def commit(self, which: int, failed: int) -> None:
        lease = self.leases[which % len(self.leases)]
        failures = [TaskFailure(lease.shard.first_task, "task", "boom")] * failed
        done = self.queue.commit([Finished(lease.shard.id, lease.shard.epoch, failures)])
        assert (done == {lease.shard.id}) == self.pure.end(
            lease.job.id, lease.shard.index, lease.shard.epoch, "done", failed
        )

    @precondition(has_leased)
    @rule(which=recent, retryable=st.booleans())
    def fail(self, which: int, retryable: bool) -> None:
        lease = self.leases[which % len(self.leases)]
        done = self.queue.fail(lease.shard.id, lease.shard.epoch, "io", "boom", retryable)
        outcome = "defer" if retryable else "fail"
        assert done == self.pure.end(lease.job.id, lease.shard.index, lease.shard.epoch, outcome)

    @precondition(has_leased)
    @rule(which=recent)
    def give_back(self, which: int) -> None:
        lease = self.leases[which % len(self.leases)]
        done = self.queue.give_back(lease.shard.id, lease.shard.epoch)
        assert done == self.pure.end(lease.job.id, lease.shard.index, lease.shard.epoch, "give_back")

    @rule(which=place, verb=st.sampled_from(["retry", "hold", "release", "cancel"]))
    def change(self, which: int, verb: str) -> None:
        job = pick(self.pure.jobs, which)
        try:
            getattr(self.queue, verb)(job, "ada")
            done = True
        except ConflictError:
            done = False
        assert done == self.pure.change(job, verb)

    @rule(which=place, priority=st.integers(0, 2))
    def prioritize(self, which: int, priority: int) -> None:
        job = pick(self.pure.jobs, which)
        try:
            self.queue.set_priority(job, priority, "ada")
            done = True
        except ConflictError:
            done = False
        assert done == self.pure.prioritize(job, priority)

    @rule(which=place)
    def drain(self, which: int) -> None:
        worker = pick(self.pure.workers, which)
        self.queue.drain_worker(worker, "root")
        self.pure.drain(worker)

    @rule(which=place, died=st.booleans())
    def lose(self, which: int, died: bool) -> None:
        """Its launcher says that it is gone."""
        worker = pick(self.pure.workers, which)
        self.queue.lose_worker(worker, died=died, reason="gone", actor="scheduler")
        self.pure.lose(worker, died=died)

    @rule(which=place)
    def stop(self, which: int) -> None:
        worker = pick(self.pure.workers, which)
        self.queue.stop_worker(worker)
        self.pure.stop(worker)

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
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
    limits = settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=limits)
