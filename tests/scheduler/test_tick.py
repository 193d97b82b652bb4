"""The scheduler keeps as many pilots as there is work for, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from ndif_batch.client import Client
from ndif_batch.errors import SettingsError
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import Cost, PilotRecord, PilotState
from ndif_batch.queue.database import Database
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, ShardState, WorkerRecord, WorkerState
from ndif_batch.scheduler import orders
from tests import toy
from tests.scheduler.small_cluster import Make, Room, settings
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


def states(room: Room, job_id: int) -> set[tuple[ShardState, int, int]]:
    return {(shard.state, shard.attempts, shard.deaths) for shard in room.queue.shards(job_id)}


def test_nothing_is_started_without_work(room: Make) -> None:
    assert room().tick().started == ()


def test_waiting_work_starts_one_pilot_with_the_resources_of_its_model(client: Client, room: Make) -> None:
    submit(client)
    own = {"toy": {"resources": {"mem_gb": 2}}}
    here = room(resources={"cpus_per_task": 1, "mem_gb": 1}, models=own)
    (name,) = here.tick().started
    request = here.cluster.requests[name]
    assert (name, request.model) == ("toy-first1", "toy")
    minutes = request.resources["timeout_min"]
    assert request.resources == {"cpus_per_task": 1, "mem_gb": 2, "timeout_min": minutes}
    assert request.environment["NDIF_BATCH_PILOT"] == name
    assert request.environment["NDIF_BATCH_WALLTIME"] == str(60 * minutes)
    assert request.environment["NDIF_BATCH_DATABASE_URL"] == client.settings.database
    assert (here.pilot(name).state, here.pilot(name).external_id) == (PilotState.QUEUED, "1")
    assert here.tick().started == ()
    assert here.pilot(name).reason == "Priority"
    here.cluster.run(name)
    here.tick()
    assert (here.pilot(name).state, here.pilot(name).reason) == (PilotState.RUNNING, "on n0")


def test_measured_work_starts_as_many_pilots_as_it_is_worth(client: Client, room: Make) -> None:
    submit(client, repeats=5, tile=(1, 1, 1))
    here = room(gpus=10)
    _, worker_id = here.running()
    here.wait(10)
    (lease,) = here.lease(worker_id, 3)
    here.queue.commit([Finished(lease.shard.id, lease.shard.epoch, (), Cost(20.0, 3))])
    assert here.queue.backlog()["toy"].tokens_per_second == 0.15
    started = here.tick().started
    assert len(started) == 9
    looks = here.cluster.looks
    assert here.tick().started == ()
    assert here.cluster.looks == looks + 1, "however many pilots there are, the launcher is asked once"


def test_a_pinned_model_keeps_its_pilots_without_work_until_it_is_not(room: Make) -> None:
    here = room(idle_seconds=30)
    here.queue.pin_model("toy", 1, actor="root")
    name, worker_id = here.running()
    assert here.cluster.requests[name].idle_seconds is None
    here.lease(worker_id, 1)
    for _ in range(2):
        here.wait(40)
        here.queue.heartbeat(worker_id, 60.0, {})
        assert (here.tick().started, here.tick().drained) == ((), ())
    here.queue.pin_model("toy", 0, actor="root")
    assert here.tick().drained == (name,)


def test_a_load_starts_one_pilot_and_is_done_when_it_has_loaded(room: Make) -> None:
    here = room(idle_seconds=30)
    here.queue.load_model("toy", actor="root")
    name, worker_id = here.running()
    assert here.cluster.requests[name].idle_seconds == 60
    here.tick()
    assert here.queue.settings() == {"load:toy": True}
    here.lease(worker_id, 1)
    here.tick()
    assert here.queue.settings() == {"load:toy": False}
    here.wait(31)
    here.queue.heartbeat(worker_id, 60.0, {})
    assert here.tick().drained == (name,)
    assert here.tick().started == ()


def test_an_evicted_model_has_no_pilots_and_waits_for_none(room: Make) -> None:
    here = room()
    here.queue.pin_model("toy", 1, actor="root")
    here.queue.load_model("toy", actor="root")
    name, _ = here.running()
    assert orders.evict(here.queue, here.cluster, "toy", actor="root", reason="evicted by root") == [name]
    assert here.pilot(name).state is PilotState.DRAINING
    assert here.tick().started == ()


def test_an_idle_pilot_is_drained_and_the_cluster_is_empty_again(client: Client, room: Make) -> None:
    submit(client)
    here = room(idle_seconds=30)
    name, worker_id = here.running()
    for lease in here.lease(worker_id, 1000):
        here.queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    here.wait(29)
    here.queue.heartbeat(worker_id, 60.0, {})
    assert here.tick().drained == ()
    here.wait(2)
    assert here.tick().drained == (name,)
    assert here.pilot(name).state is PilotState.DRAINING
    assert here.queue.heartbeat(worker_id, 60.0, {}).drain
    assert here.cluster.asked == [("drain", name)]
    here.queue.stop_worker(worker_id)
    here.cluster.end(name, "COMPLETED")
    assert here.tick().ended == (name,)
    assert here.pilot(name).state is PilotState.ENDED
    assert here.queue.pilots() == []
    submit(client, seed=1)
    assert len(here.tick().started) == 1


def test_a_pilot_that_does_not_end_when_asked_is_killed_after_a_while(client: Client, room: Make) -> None:
    job = submit(client)
    here = room(drain_seconds=30)
    name, worker_id = here.running()
    here.lease(worker_id)
    orders.drain(here.queue, here.cluster, here.pilot(name), actor="ada", reason="draining by ada")
    here.wait(30)
    here.queue.heartbeat(worker_id, 60.0, {})
    assert here.tick().ended == ()
    here.wait(1)
    here.queue.heartbeat(worker_id, 60.0, {})
    assert here.tick().ended == (name,)
    assert here.cluster.asked == [("drain", name), ("cancel", name)]
    assert (here.pilot(name).state, here.pilot(name).reason) == (
        PilotState.FAILED,
        "asked to end and had not after 0:00:30",
    )
    assert states(here, job.id) == {(ShardState.PENDING, 0, 0)}
    kinds = [event.kind for event in here.queue.events(limit=1000)]
    assert kinds.count(EventKind.PILOT_FAILED) == kinds.count(EventKind.WORKER_LOST) == 1
    assert EventKind.SHARD_EXPIRED in kinds


def test_pilots_that_wait_for_work_that_is_gone_are_cancelled(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    (name,) = here.tick().started
    job.cancel()
    assert here.tick().drained == (name,)
    assert here.cluster.asked == [("cancel", name)]
    assert here.pilot(name).state is PilotState.ENDED


def test_a_preempted_pilot_gives_its_shards_back_at_once_and_is_replaced(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    name, worker_id = here.running()
    assert here.lease(worker_id)
    here.cluster.end(name, "PREEMPTED")
    ticked = here.tick()
    assert ticked.ended == (name,)
    assert len(ticked.started) == 1
    assert states(here, job.id) == {(ShardState.PENDING, 0, 0)}
    assert here.pilot(name).state is PilotState.ENDED


def test_a_pilot_that_failed_is_counted_against_the_shards_that_it_held(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    name, worker_id = here.running()
    assert len(here.lease(worker_id)) == 1
    here.cluster.end(name, "OUT_OF_MEMORY")
    here.tick()
    assert states(here, job.id) == {(ShardState.PENDING, 1, 1), (ShardState.PENDING, 0, 0)}
    assert (here.pilot(name).state, here.pilot(name).reason) == (PilotState.FAILED, "OUT_OF_MEMORY")
    (worker,) = here.queue.workers()
    assert worker.state is WorkerState.LOST


def test_a_requeued_pilot_waits_again(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    name, worker_id = here.running()
    here.lease(worker_id)
    here.tick()
    here.cluster.see(name, "BeginTime")
    assert here.tick().started == ()
    assert (here.pilot(name).state, here.pilot(name).started_at) == (PilotState.QUEUED, None)
    assert states(here, job.id) == {(ShardState.PENDING, 0, 0)}


def test_a_pilot_that_its_launcher_has_forgotten_lives_as_long_as_its_worker_speaks(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    name, worker_id = here.running()
    here.lease(worker_id)
    here.tick()
    del here.cluster.pilots[name]
    here.wait(50)
    here.queue.heartbeat(worker_id, 60.0, {})
    assert here.tick().ended == ()
    here.wait(61)
    assert here.tick().ended == (name,)
    assert here.pilot(name).state is PilotState.FAILED
    assert here.pilot(name).reason == "its launcher does not know it any more"


def test_a_pilot_that_dies_while_it_loads_its_model_unseen_does_not_count_as_alive(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    name, _ = here.running()
    here.tick()
    del here.cluster.pilots[name]
    here.wait(29)
    assert here.tick().ended == ()
    here.wait(2)
    assert here.tick().ended == (name,)
    assert here.queue.workers()[0].state is WorkerState.LOST


def test_a_pilot_whose_worker_is_silent_is_cancelled_and_replaced(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    name, worker_id = here.running()
    here.lease(worker_id)
    here.tick()
    here.wait(119)
    assert here.tick().ended == ()
    here.wait(2)
    assert here.tick().ended == (name,)
    here.wait(15)
    assert len(here.tick().started) == 1
    assert here.cluster.asked == [("cancel", name)]
    assert here.pilot(name).reason == "its worker is silent"
    (worker,) = here.queue.workers()
    assert worker.state is WorkerState.LOST
    assert here.queue.backlog()["toy"].tasks == 12


def test_a_silent_worker_whose_shards_others_have_taken_is_cancelled_too(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    name, worker_id = here.running()
    here.lease(worker_id)
    here.tick()
    here.wait(121)
    here.lease(here.queue.register_worker(toy.NAME, "n1", 2), 1)
    assert here.tick().ended == (name,)
    assert here.cluster.asked == [("cancel", name)]


def test_a_pilot_left_pending_or_held_is_given_up(client: Client, room: Make) -> None:
    submit(client)
    here = room(pending_seconds=600)
    (name,) = here.tick().started
    here.cluster.see(name, "JobHeldAdmin")
    here.wait(599)
    assert here.tick().ended == ()
    assert here.pilot(name).reason == "JobHeldAdmin"
    here.wait(2)
    assert here.tick().ended == (name,)
    assert here.cluster.asked == [("cancel", name)]
    assert here.pilot(name).reason == "left pending for 0:10:00: JobHeldAdmin"


def test_after_a_refusal_it_is_tried_again_later_and_later(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    here.cluster.refusal = SettingsError("Slurm refused the pilot: invalid partition")
    tried = []
    for second in range(120):
        before = len(here.queue.pilots(active=False))
        assert here.tick().started == ()
        if len(here.queue.pilots(active=False)) > before:
            tried.append(second)
        here.wait(1)
    assert tried == [0, 15, 45, 105]
    assert {pilot.reason for pilot in here.queue.pilots(active=False)} == {here.cluster.refusal.message}
    here.cluster.refusal = None
    here.wait(120)
    assert len(here.tick().started) == 1


def test_a_walltime_that_was_too_short_for_anything_is_told_and_grows(client: Client, room: Make) -> None:
    submit(client)
    here = room(shortest_walltime=300, longest_walltime=1800)
    given = []
    for lived in (300, 600, 1200):
        name, worker_id = here.running()
        given.append(here.pilot(name).resources["timeout_min"])
        here.wait(lived)
        here.queue.stop_worker(worker_id)
        here.cluster.end(name, "TIMEOUT")
        assert here.tick().started == ()
        assert (here.pilot(name).state, here.pilot(name).reason) == (PilotState.FAILED, "TIMEOUT")
        here.wait(61)
    assert given == [5, 10, 20]
    name, worker_id = here.running()
    assert here.pilot(name).resources["timeout_min"] == 30
    (lease,) = here.lease(worker_id, 1)
    here.queue.commit([Finished(lease.shard.id, lease.shard.epoch, (), Cost(20.0, 3))])
    here.cluster.end(name, "TIMEOUT")
    assert len(here.tick().started) == 1
    assert here.pilot(name).state is PilotState.ENDED


def test_pilots_with_other_resources_than_those_that_were_refused_are_tried_at_once(client: Client, room: Make) -> None:
    submit(client)
    here = room(resources={"slurm_partition": "big"})
    here.cluster.refusal = SettingsError("Slurm refused the pilot: invalid partition")
    here.tick()
    here.cluster.refusal = None
    assert here.tick().started == ()
    here.scheduler.settings = settings(client.settings, resources={"slurm_partition": "main"})
    assert len(here.tick().started) == 1


def test_a_pilot_whose_scheduler_died_while_it_was_started_is_found_again(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    here.cluster.crash = KeyboardInterrupt()
    try:
        here.tick()
    except KeyboardInterrupt:
        here.cluster.crash = None
    (pilot,) = here.queue.pilots()
    assert pilot.state is PilotState.REQUESTED
    assert here.tick().started == ()
    assert (here.pilot(pilot.name).state, here.pilot(pilot.name).external_id) == (PilotState.QUEUED, "1")


def test_a_pilot_that_was_never_started_is_given_up(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    here.queue.add_pilot("lost", toy.NAME, "local", {}, actor="a scheduler that died")
    here.wait(29)
    assert here.tick().ended == ()
    here.wait(2)
    assert here.tick().ended == ("lost",)


def test_a_pilot_that_was_given_up_and_runs_all_the_same_is_ended(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    (name,) = here.tick().started
    seen = here.cluster.pilots.pop(name)
    here.wait(31)
    assert here.tick().ended == (name,)
    here.cluster.pilots[name] = seen
    here.tick()
    assert here.cluster.asked == [("cancel", name)]


class Short(Queue):
    """A queue that nobody may ask for all that there ever was."""

    def pilots(self, *, active: bool = True, limit: int | None = None, after: int = 0) -> list[PilotRecord]:
        assert active
        return super().pilots(active=True, limit=limit, after=after)

    def workers(
        self, ids: Collection[int] | None = None, limit: int | None = None, before: int | None = None
    ) -> list[WorkerRecord]:
        assert ids is not None
        return super().workers(ids, limit, before)


def test_a_round_does_not_read_the_pilots_and_workers_of_all_times(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    for number in range(20):
        pilot = here.queue.add_pilot(f"old{number}", toy.NAME, "local", {}, actor="a test")
        here.queue.stop_worker(here.queue.register_worker(toy.NAME, "n0", number, pilot.name))
        here.queue.update_pilot(pilot.id, PilotState.RUNNING, PilotState.FAILED, reason="a test", actor="a test")
    here.wait(15 * 60 - 1)
    with Short(Database(client.settings.database, lambda: here.now)) as queue:
        here.scheduler.queue = queue
        assert here.tick().started == (), "the newest are enough to wait the longest time"
        here.wait(2)
        (name,) = here.tick().started
        here.cluster.run(name)
        here.cluster.pilots["old3"] = here.cluster.pilots[name]
        assert here.tick().ended == ()
        assert here.cluster.asked == [("cancel", "old3")]
        job.cancel()
        here.cluster.end(name, "COMPLETED")
        assert here.tick().ended == (name,)


def test_one_scheduler_leads_and_another_takes_over_when_it_is_silent(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    second = here.another("second")
    assert len(here.tick().started) == 1
    assert not second.tick().leads
    here.wait(29)
    assert here.tick().leads
    here.wait(31)
    assert second.tick().leads
    assert here.queue.pilots()[0].name == "toy-first1"
    assert not here.tick().leads
    second.resign()
    assert here.tick().leads


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_host_whose_clock_is_wrong_judges_by_the_database_s(client: Client, room: Make, hours: int) -> None:
    submit(client)
    here = room()
    here.wait(3600 * hours)
    name, worker_id = here.running()
    here.lease(worker_id)
    for _ in range(3):
        assert here.tick().ended == ()
        here.wait(20)
    assert here.pilot(name).state is PilotState.RUNNING


def test_a_pause_starts_nothing_and_drains_nothing_that_works(client: Client, room: Make) -> None:
    submit(client)
    here = room()
    here.queue.pause(toy.NAME, actor="ada")
    assert here.tick().started == ()
    here.queue.resume(toy.NAME, actor="ada")
    name, worker_id = here.running()
    here.lease(worker_id)
    here.queue.pause(actor="ada")
    assert here.tick().drained == ()
    assert here.lease(worker_id) == []
    here.queue.resume(actor="ada")
    assert here.pilot(name).state is PilotState.RUNNING


def test_models_that_keep_a_pilot_have_one_without_work(room: Make) -> None:
    here = room(models={"toy": {"minimum": 1}})
    (name,) = here.tick().started
    assert here.cluster.requests[name].idle_seconds is None
    assert here.tick().started == ()


def test_a_killed_pilot_takes_nothing_with_it(client: Client, room: Make) -> None:
    job = submit(client)
    here = room()
    name, worker_id = here.running()
    here.lease(worker_id)
    here.tick()
    orders.kill(here.queue, here.cluster, here.pilot(name), actor="ada", reason="killed by ada")
    assert here.pilot(name).state is PilotState.ENDED
    assert states(here, job.id) == {(ShardState.PENDING, 0, 0)}
    with working(client, ToyEngine()) as other:
        other.run()
    assert job.refresh().record.tasks_done == 12
