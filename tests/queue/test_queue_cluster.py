"""Pilots, their leader, users, usage, settings and backlog: what a scheduler and administrators ask of the queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from ndif_batch.errors import ConflictError, NotFoundError, UsageError
from ndif_batch.queue.cluster import (
    Cost,
    DeviceReading,
    LeaderRecord,
    ModelBacklog,
    PilotRecord,
    PilotState,
    Quotas,
    Role,
)
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import WorkerState
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import report
from ndif_batch.queue.telemetry import Gauge, Histogram, Measured
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import MODEL, SECONDS, job_spec, new_worker, take


def new_pilot(queue: Queue, name: str = "p1") -> PilotRecord:
    return queue.add_pilot(name, MODEL.name, "slurm", {"gpus_per_node": 1}, actor="scheduler")


def move(queue: Queue, pilot: PilotRecord, expected: PilotState, state: PilotState, reason: str | None = None) -> bool:
    return queue.update_pilot(pilot.id, expected, state, reason=reason, actor="scheduler")


def the_pilot(queue: Queue) -> PilotRecord:
    (found,) = queue.pilots(active=False)
    return found


def test_one_holder_leads_until_its_lease_runs_out(queue: Queue, clock: HandClock) -> None:
    assert queue.acquire_leader("scheduler", "a", 30)
    assert not queue.acquire_leader("scheduler", "b", 30)
    assert queue.acquire_leader("other", "b", 30)
    clock.forward(29)
    assert queue.acquire_leader("scheduler", "a", 30)
    clock.forward(29.9)
    assert not queue.acquire_leader("scheduler", "b", 30)
    clock.forward(0.1)
    assert queue.acquire_leader("scheduler", "b", 30)
    assert not queue.acquire_leader("scheduler", "a", 30)


def test_who_resigns_ends_the_lead_of_no_other(queue: Queue) -> None:
    assert queue.acquire_leader("scheduler", "a", 30)
    assert not queue.acquire_leader("scheduler", "b", 0)
    assert not queue.acquire_leader("scheduler", "b", 30)


def test_who_led_while_the_clock_was_ahead_does_not_lead_for_ever(queue: Queue, clock: HandClock) -> None:
    clock.forward(3600)
    assert queue.acquire_leader("scheduler", "a", 30)
    clock.forward(-3600)
    assert queue.acquire_leader("scheduler", "b", 30)
    assert not queue.acquire_leader("scheduler", "a", 30)


def test_a_pilot_is_written_down_before_it_starts_and_its_name_is_used_once(queue: Queue, clock: HandClock) -> None:
    pilot = new_pilot(queue)
    assert (pilot.state, pilot.external_id, pilot.resources) == (PilotState.REQUESTED, None, {"gpus_per_node": 1})
    assert pilot.requested_at == clock.now
    assert queue.pilots() == [pilot]
    with pytest.raises(ConflictError, match="there is a pilot 'p1' already"):
        new_pilot(queue)
    with pytest.raises(NotFoundError, match="no model 'gpt'"):
        queue.add_pilot("p2", "gpt", "slurm", {}, actor="scheduler")


def test_a_pilot_lives_from_requested_to_ended(queue: Queue, clock: HandClock) -> None:
    pilot = new_pilot(queue)
    assert queue.update_pilot(pilot.id, pilot.state, PilotState.QUEUED, external_id="77", actor="scheduler")
    clock.forward(5)
    assert move(queue, pilot, PilotState.QUEUED, PilotState.RUNNING)
    assert (the_pilot(queue).external_id, the_pilot(queue).started_at) == ("77", clock.now)
    assert move(queue, pilot, PilotState.RUNNING, PilotState.DRAINING, "idle")
    clock.forward(5)
    assert move(queue, pilot, PilotState.DRAINING, PilotState.ENDED)
    ended = the_pilot(queue)
    assert (ended.state, ended.ended_at, ended.reason) == (PilotState.ENDED, clock.now, "idle")
    assert queue.pilots() == []
    kinds = [str(event.kind) for event in queue.events() if event.detail.get("pilot") == "p1"]
    assert kinds == [f"pilot.{kind}" for kind in ("requested", "queued", "running", "draining", "ended")]


def test_of_those_that_have_ended_only_the_newest_of_each_model_are_told(queue: Queue) -> None:
    other = queue.add_model(replace(MODEL, name="other", digest="o"))
    for number in range(6):
        for model in (MODEL, other):
            name = f"{model.name}-{number}"
            pilot = queue.add_pilot(name, model.name, "slurm", {}, actor="scheduler")
            if number:
                move(queue, pilot, PilotState.REQUESTED, PilotState.FAILED, "a test")

    def told(models: list[str], ended: int) -> list[str]:
        return [pilot.name for pilot in queue.newest_pilots(models, ended)]

    first, second = MODEL.name, other.name
    alive = [f"{first}-0", f"{second}-0"]
    assert told([], 2) == alive
    assert told([first], 2) == [*alive, f"{first}-4", f"{first}-5"]
    assert told([second, first], 1) == [*alive, f"{first}-5", f"{second}-5"]
    assert told([first, "never was"], 1) == [*alive, f"{first}-5"]
    assert [pilot.name for pilot in queue.pilots_named([f"{first}-0", f"{second}-3", "never"])] == [
        f"{first}-0",
        f"{second}-3",
    ]
    assert queue.pilots_named([]) == []


def test_workers_are_told_by_their_ids(queue: Queue) -> None:
    ids = [queue.register_worker(MODEL.name, "n", pid) for pid in range(4)]
    assert [worker.id for worker in queue.workers({ids[0], ids[2], 999})] == [ids[2], ids[0]]
    assert queue.workers([]) == []
    assert [worker.id for worker in queue.workers()] == ids[::-1]


def test_a_pilot_that_is_elsewhere_is_left_alone_and_an_impossible_move_refused(queue: Queue) -> None:
    pilot = new_pilot(queue)
    assert not move(queue, pilot, PilotState.QUEUED, PilotState.RUNNING)
    assert the_pilot(queue).state is PilotState.REQUESTED
    with pytest.raises(ConflictError, match="'p1' cannot go from REQUESTED to DRAINING"):
        move(queue, pilot, PilotState.REQUESTED, PilotState.DRAINING)
    assert move(queue, pilot, PilotState.REQUESTED, PilotState.FAILED, "the partition refuses")
    with pytest.raises(ConflictError, match="cannot go from FAILED to RUNNING"):
        move(queue, pilot, PilotState.FAILED, PilotState.RUNNING)
    with pytest.raises(NotFoundError, match="no pilot 99"):
        queue.update_pilot(99, PilotState.QUEUED, PilotState.RUNNING, actor="scheduler")


def test_a_requeued_pilot_starts_anew(queue: Queue, clock: HandClock) -> None:
    pilot = new_pilot(queue)
    assert move(queue, pilot, PilotState.REQUESTED, PilotState.RUNNING)
    assert move(queue, pilot, PilotState.RUNNING, PilotState.QUEUED, "preempted")
    assert the_pilot(queue).started_at is None
    clock.forward(9)
    assert move(queue, pilot, PilotState.QUEUED, PilotState.RUNNING)
    assert the_pilot(queue).started_at == clock.now


def test_the_worker_inside_a_pilot_shows_that_it_runs(queue: Queue) -> None:
    pilot = new_pilot(queue)
    move(queue, pilot, PilotState.REQUESTED, PilotState.QUEUED)
    for _ in range(2):
        worker = queue.register_worker(MODEL.name, "node1", 1, pilot="p1")
        assert (the_pilot(queue).state, the_pilot(queue).worker_id) == (PilotState.RUNNING, worker)
    move(queue, pilot, PilotState.RUNNING, PilotState.ENDED)
    queue.register_worker(MODEL.name, "node1", 1, pilot="p1")
    assert the_pilot(queue).state is PilotState.ENDED
    with pytest.raises(NotFoundError, match="no pilot 'p9'"):
        queue.register_worker(MODEL.name, "node1", 1, pilot="p9")


def test_a_worker_tells_its_device_its_loading_and_its_work(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec())
    worker = new_worker(queue)
    clock.forward(40)
    (lease,) = take(queue, worker)
    ready = clock.now
    clock.forward(5)
    queue.heartbeat(worker, SECONDS, {lease.shard.id: 1}, DeviceReading("H100", 10, 80, 0.5))
    (told,) = queue.workers()
    assert (told.ready_at, told.worked_at, told.state) == (ready, clock.now, WorkerState.RUNNING)
    assert (told.device, told.memory_used, told.memory_total, told.utilization) == ("H100", 10, 80, 0.5)
    queue.commit([Finished(lease.shard.id, lease.shard.epoch, cost=Cost(2.0, 50))])
    worked = clock.now
    clock.forward(5)
    queue.heartbeat(worker, SECONDS, {})
    (told,) = queue.workers()
    assert (told.gpu_seconds, told.tokens, told.worked_at, told.device) == (2.0, 50, worked, "H100")


def test_a_cost_is_charged_to_the_job_s_user_by_the_hour_and_only_once(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec())
    queue.submit(job_spec(user="bob", shards=1))
    worker = new_worker(queue)
    first, second, third, fourth, bobs = take(queue, worker, 5)
    for _ in range(2):
        assert queue.commit([Finished(first.shard.id, first.shard.epoch, cost=Cost(1.5, 100, 20))])
    assert queue.commit([Finished(second.shard.id, second.shard.epoch, cost=Cost(0.5, 50, 10))])
    assert queue.commit([Finished(bobs.shard.id, bobs.shard.epoch, cost=Cost(4.0, 10))])
    clock.forward(3600)
    assert queue.fail(third.shard.id, third.shard.epoch, "io", "boom", retryable=True, cost=Cost(0.25, 1))
    assert queue.commit([Finished(fourth.shard.id, fourth.shard.epoch)])
    began = clock.now - timedelta(hours=1)
    assert [(one.hour, one.cost) for one in queue.usage_of("ada")] == [
        (began, Cost(2.0, 150, 30)),
        (clock.now, Cost(0.25, 1, 0)),
    ]
    assert [one.user for one in queue.usage_of()] == ["ada", "bob", "ada"]
    assert [one.user for one in queue.usage_of(since=clock.now)] == ["ada"]


def test_users_appear_with_one_share_and_no_quota_and_may_be_changed(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec())
    ada = queue.user("ada")
    assert (ada.role, ada.shares, ada.quotas, ada.created_at) == (Role.USER, 1.0, Quotas(), clock.now)
    assert queue.set_shares("bob", 2.5, actor="root").shares == 2.5
    assert queue.set_quotas("bob", Quotas(running_shards=3), actor="root").quotas == Quotas(None, 3, None)
    assert queue.set_role("bob", Role.ADMIN, actor="root").role is Role.ADMIN
    assert [user.name for user in queue.users()] == ["ada", "bob"]
    assert [event.actor for event in queue.events() if event.kind == "user.changed"] == ["root"] * 3
    with pytest.raises(NotFoundError, match="no user 'eve'"):
        queue.user("eve")


@pytest.mark.parametrize("shares", [0, -1, float("inf"), float("nan")])
def test_shares_are_positive_numbers(queue: Queue, shares: float) -> None:
    with pytest.raises(UsageError, match="shares"):
        queue.set_shares("ada", shares, actor="root")


def test_a_quota_is_not_negative(queue: Queue) -> None:
    with pytest.raises(UsageError, match="archive_bytes"):
        queue.set_quotas("ada", Quotas(archive_bytes=-1), actor="root")


def test_settings_are_kept_and_told(queue: Queue) -> None:
    assert queue.settings() == {}
    queue.set_settings({"half_life_hours": 168, "limits": {"pilots": 4}}, actor="root")
    queue.set_settings({"half_life_hours": 24}, actor="root")
    assert queue.settings() == {"half_life_hours": 24, "limits": {"pilots": 4}}
    assert [event.detail["value"] for event in queue.events() if event.kind == "setting.changed"][-1] == 24


@pytest.mark.parametrize("model", [None, MODEL.name])
def test_a_pause_stops_leases_and_not_commits(queue: Queue, model: str | None) -> None:
    queue.submit(job_spec())
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    queue.pause("another model", actor="root")
    queue.pause(model, actor="root")
    assert take(queue, worker) == []
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    queue.resume(model, actor="root")
    assert len(take(queue, worker)) == 1


def test_the_backlog_counts_what_waits_and_how_fast_it_would_go(queue: Queue, clock: HandClock) -> None:
    assert queue.backlog() == {}
    queue.submit(job_spec(shards=4, each=10, tokens_per_task=5))
    clock.forward(100)
    queue.submit(job_spec(shards=2, each=3, tokens_per_task=7, user="bob"))
    queue.submit(job_spec(hold=True))
    both = ModelBacklog({"ada": 200, "bob": 42}, 46, 6, 100.0, 100.0, None, None)
    assert queue.backlog() == {MODEL.name: both}
    worker = new_worker(queue)
    clock.forward(30)
    first, *_ = take(queue, worker, 4)
    clock.forward(10)
    bobs = ModelBacklog({"bob": 42}, 6, 2, 40.0, 10.0, None, 30.0)
    assert queue.backlog() == {MODEL.name: bobs}
    assert queue.commit([Finished(first.shard.id, first.shard.epoch, cost=Cost(2.0, 50))])
    assert queue.backlog() == {MODEL.name: replace(bobs, waited_seconds=0.0, tokens_per_second=25.0)}
    take(queue, worker, 9)
    assert queue.backlog() == {}


def test_who_leads_is_known_until_their_lease_ends(queue: Queue, clock: HandClock) -> None:
    assert queue.leader("scheduler") is None
    assert queue.acquire_leader("scheduler", "here", 30)
    assert queue.leader("scheduler") == LeaderRecord("here", clock.now + timedelta(seconds=30))
    clock.forward(30)
    assert queue.leader("scheduler") is None


def test_reports_of_those_that_are_gone_become_one_and_no_sum_falls(queue: Queue, clock: HandClock) -> None:
    seconds = [0.1, 0.2, 0.3, 1e16, 0.7, 1e-9]
    alive = new_worker(queue)

    def told(worker: int, value: float) -> None:
        gauge = Gauge()
        gauge.observe("pass_seconds", value)
        gauge.count("saved")
        gauge.deviates(value)
        queue.heartbeat(worker, 400 * 86_400, {}, DeviceReading("H100", 1, 2, None, gauge.measured))

    def passes() -> Histogram:
        return queue.measured()[MODEL.name].histograms["pass_seconds"]

    def rows() -> int:
        with queue._database.read() as tx:
            return tx.connection.scalar(select(func.count()).select_from(report)) or 0

    told(alive, 5.0)
    before, most = passes(), 0
    for day in range(24):
        worker = new_worker(queue)
        told(worker, seconds[day % len(seconds)])
        queue.report(f"a scheduler of day {day}", Measured(counts={"rounds": 1}))
        queue.stop_worker(worker)
        found = passes()
        assert found.total >= before.total
        assert sum(found.counts) == day + 2
        clock.forward(86_400 / 2)
        before, most = found, max(most, rows())
    assert most <= 1 + 2 * (1 + 3)
    whole = queue.measured()[MODEL.name]
    assert (whole.counts, whole.deviation) == ({"saved": 25}, 1e16)
    assert queue.measured()[None].counts == {"rounds": 24}
    assert whole.histograms["pass_seconds"].total == pytest.approx(5 + 4 * sum(seconds), rel=1e-12)
    told(alive, 6.0)
    assert queue.measured()[MODEL.name].counts == {"saved": 25}


def test_reports_are_folded_once_by_many_at_once(queue: Queue, clock: HandClock) -> None:
    def begins(worker: int) -> None:
        queue.heartbeat(worker, 10.0, {}, DeviceReading("H100", 1, 2, None, Measured(counts={"saved": 1})))

    for _ in range(4):
        together = [new_worker(queue) for _ in range(8)]
        with ThreadPoolExecutor(8) as all_of_them:
            list(all_of_them.map(begins, together))
        for worker in together:
            queue.stop_worker(worker)
        clock.forward(86_400)
    assert queue.measured()[MODEL.name].counts == {"saved": 32}


def test_the_newest_report_of_each_worker_counts_and_all_add_up(queue: Queue) -> None:
    gauge = Gauge()
    for worker in (new_worker(queue), new_worker(queue)):
        for _ in range(2):
            gauge.count("saved", 3)
            queue.heartbeat(worker, SECONDS, {}, DeviceReading("H100", 1, 2, None, gauge.measured))
    queue.heartbeat(worker, SECONDS, {}, DeviceReading("H100", 1, 2))
    gauge.observe("tick_seconds", 0.1)
    queue.report("a scheduler", gauge.measured)
    found = queue.measured()
    assert found[MODEL.name].counts == {"saved": 6 + 12}
    assert sum(found[None].histograms["tick_seconds"].counts) == 1
