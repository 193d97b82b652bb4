"""Part of the conformance suite: a call whose answer was lost is made again, and does no harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

from ndif_batch.errors import UnavailableError
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.records import JobState, TaskFailure, WorkerState
from tests.queue.queue_samples import ALL, MODEL, SECONDS, indices, job_spec, kinds, new_worker, take
from tests.queue.worker_queue_stand import Outage, Stand, done

Ask: TypeAlias = Callable[[], Any]
COST = Cost(1.5, 100, 20)


def registers(stand: Stand) -> Ask:
    return lambda: stand.queue.register_worker(MODEL.name, "node1", 1, key="a process")


def leases(stand: Stand) -> Ask:
    return lambda: stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, max_shards=2, held=[])


def beats(stand: Stand) -> Ask:
    (lease,) = stand.take()
    return lambda: stand.queue.heartbeat(stand.worker, SECONDS, {lease.shard.id: 3})


def commits(stand: Stand) -> Ask:
    first, second = stand.take(2)
    failure = TaskFailure(second.shard.first_task, "task", "boom")
    return lambda: stand.queue.commit([done(first, cost=COST), done(second, cost=COST, failures=[failure])])


def fails(stand: Stand) -> Ask:
    (lease,) = stand.take()
    return lambda: stand.queue.fail(lease.shard.id, lease.shard.epoch, "io", "stale", retryable=True, cost=COST)


def gives_back(stand: Stand) -> Ask:
    (lease,) = stand.take()
    return lambda: stand.queue.give_back(lease.shard.id, lease.shard.epoch)


def stops(stand: Stand) -> Ask:
    stand.take()
    return lambda: stand.queue.stop_worker(stand.worker)


CHANGES: Mapping[str, Callable[[Stand], Ask]] = {
    "register_worker": registers,
    "lease": leases,
    "heartbeat": beats,
    "commit": commits,
    "fail": fails,
    "give_back": gives_back,
    "stop_worker": stops,
}
ONCE = ("fail", "give_back")
"""They tell whether the call itself counted: of a repeat, False."""


class Repeats:
    """Every call happens wholly or not at all, and once however often it is made."""

    @pytest.mark.parametrize("call", CHANGES)
    def test_a_call_that_is_made_again_changes_nothing_and_gets_the_same_answer(self, stand: Stand, call: str) -> None:
        stand.admin.submit(job_spec())
        ask = CHANGES[call](stand)
        answer, after = ask(), stand.everything()
        again = ask()
        assert again == (False if call in ONCE else answer)
        assert stand.everything() == after

    @pytest.mark.parametrize("call", CHANGES)
    def test_a_call_that_breaks_happens_wholly_or_not_at_all(self, stand: Stand, outage: Outage, call: str) -> None:
        stand.admin.submit(job_spec())
        ask = CHANGES[call](stand)
        before = stand.everything()
        with outage.during(), pytest.raises(UnavailableError):
            ask()
        assert (stand.everything() != before) is outage.happens
        again, after = ask(), stand.everything()
        assert bool(again) is not (outage.happens and call in ONCE) or call == "stop_worker"
        assert after != before
        ask()
        assert stand.everything() == after

    def test_a_worker_registers_once_under_its_key(self, stand: Stand) -> None:
        one, again, other = (
            stand.queue.register_worker(MODEL.name, "node1", 1, key=key) for key in ("first", "first", "second")
        )
        assert one == again != other
        assert [worker.id for worker in stand.admin.workers()] == [other, one, stand.worker]

    def test_what_a_lost_answer_leased_is_leased_again_and_nothing_else(self, stand: Stand) -> None:
        job = stand.admin.submit(job_spec(shards=5))
        (known,) = stand.take()
        lost = stand.take(2)
        stand.clock.forward(SECONDS / 2)
        again = stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, held=[known.shard.id])
        assert [(one.shard.id, one.shard.epoch) for one in again] == [(one.shard.id, 1) for one in lost]
        assert [one.shard for one in again] == [stand.shard(one) for one in lost]
        assert again[0].job == stand.admin.job(job.id)
        stand.clock.forward(SECONDS / 2)
        others = take(stand.queue, new_worker(stand.queue), 9)
        assert indices(others) == [0, 3, 4]
        assert kinds(stand.admin, job.id).count("shard.leased") == 6
        assert stand.queue.commit([done(one) for one in again]) == {one.shard.id for one in lost}

    def test_a_lease_that_arrives_late_strands_nothing(self, stand: Stand) -> None:
        """The first call is slow, its repeat is answered and worked on, then the first one happens: to nobody."""
        stand.admin.submit(job_spec(shards=3))
        (lease,) = stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, max_shards=1, held=[])
        assert stand.queue.commit([done(lease)])
        (to_nobody,) = stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, max_shards=1, held=[])
        (again,) = stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, max_shards=1, held=[])
        assert (again.shard.id, again.shard.epoch) == (to_nobody.shard.id, to_nobody.shard.epoch)

    def test_a_lost_answer_is_given_again_in_a_pause_and_not_while_draining(self, stand: Stand) -> None:
        stand.admin.submit(job_spec())
        stand.take()
        stand.admin.pause(actor="root")
        assert indices(stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, held=[])) == [0]
        stand.admin.drain_worker(stand.worker, "root")
        assert stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, held=[]) == []

    def test_a_lost_answer_that_is_not_asked_for_in_time_goes_to_others(self, stand: Stand) -> None:
        stand.admin.submit(job_spec(shards=1))
        stand.take()
        stand.clock.forward(SECONDS / 2)
        stand.queue.heartbeat(stand.worker, SECONDS, {})
        stand.clock.forward(SECONDS / 2)
        (again,) = take(stand.queue, new_worker(stand.queue))
        assert (again.shard.epoch, again.shard.attempts) == (2, 0)
        assert stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, held=[]) == []

    def test_a_worker_works_a_job_off_through_an_outage_of_every_call(self, stand: Stand, outage: Outage) -> None:
        job = stand.admin.submit(job_spec(shards=6))

        def ask(call: Ask) -> Any:
            with outage.during(), pytest.raises(UnavailableError):
                call()
            return call()

        def work() -> None:
            found = ask(lambda: stand.queue.lease(stand.worker, MODEL.name, ALL, SECONDS, 2, held=[]))
            held = dict.fromkeys((lease.shard.id for lease in found), 5)
            assert ask(lambda: stand.queue.heartbeat(stand.worker, SECONDS, held)).lost == ()
            assert ask(lambda: stand.queue.commit([done(lease, cost=COST) for lease in found])) == set(held)

        while stand.queue.has_work(MODEL.name):
            work()
        ask(lambda: stand.queue.stop_worker(stand.worker))
        assert stand.admin.job(job.id).state is JobState.COMPLETED
        assert {shard.epoch for shard in stand.admin.shards(job.id)} == {1}
        assert stand.admin.usage_of("ada")[0].cost == Cost(9.0, 600, 120)
        assert stand.admin.workers()[0].state is WorkerState.STOPPED
