"""What is summed up over many rows, and why things were done: the same on both databases."""

from __future__ import annotations

from ndif_batch.queue.cluster import Role
from ndif_batch.queue.figures import ArchiveFigures, EventFilter, JobFigures, JobFilter
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, JobState, TaskFailure
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import MODEL, job_spec, new_worker, take


def test_a_pulse_changes_with_all_that_pages_show_and_with_nothing_else(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=2))
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    seen = [queue.pulse()]
    assert queue.pulse() == seen[0]
    clock.forward(1)
    queue.heartbeat(worker, 60, {lease.shard.id: 3})
    seen.append(queue.pulse())
    queue.heartbeat(worker, 60, {lease.shard.id: 7})
    seen.append(queue.pulse())
    queue.set_settings({"half_life_hours": 3}, actor="root")
    seen.append(queue.pulse())
    assert len(set(seen)) == 4
    assert [pulse.progress for pulse in seen] == [0, 3, 7, 7]


def test_jobs_are_counted_by_model_and_state_and_found_by_what_they_are(queue: Queue) -> None:
    first = queue.submit(job_spec(shards=1, user="ada", name="100% Patching"))
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    failures = (TaskFailure(0, "task", "no"),)
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch, failures)])
    second = queue.submit(job_spec(shards=1, user="bob", name="1000 patches", hold=True))
    assert queue.job_figures() == [
        JobFigures(MODEL.name, JobState.FAILED, 1, 10, 9, 1),
        JobFigures(MODEL.name, JobState.HELD, 1, 10, 0, 0),
    ]
    assert queue.job_figures("bob") == [JobFigures(MODEL.name, JobState.HELD, 1, 10, 0, 0)]

    def found(**wanted: object) -> list[int]:
        return [job.id for job in queue.find_jobs(JobFilter(**wanted))]  # type: ignore[arg-type]

    assert found() == [second.id, first.id]
    assert found(name="PATCH") == [second.id, first.id]
    assert found(name="100%") == [first.id]
    assert found(user="bob") == found(state=JobState.HELD) == [second.id]
    assert found(model="other") == []
    assert [job.id for job in queue.find_jobs(JobFilter(), before=second.id)] == [first.id]


def test_results_are_summed_up_by_who_owns_them(queue: Queue) -> None:
    for user, size in (("ada", 10), ("ada", 5), ("bob", 20), ("bob", 0)):
        queue.submit(job_spec(shards=1, user=user, archive_bytes=size))
    assert queue.archive_figures() == [ArchiveFigures("bob", 1, 20), ArchiveFigures("ada", 2, 15)]
    assert queue.archive_figures("ada") == [ArchiveFigures("ada", 2, 15)]
    assert [job.archive_bytes for job in queue.largest_archives(limit=2)] == [20, 10]
    assert [job.archive_bytes for job in queue.largest_archives("ada")] == [10, 5]


def test_workers_of_now_are_listed_with_what_they_hold_and_old_ones_are_not(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=3))
    old, gone, alive = (new_worker(queue) for _ in range(3))
    queue.stop_worker(old)
    clock.forward(3601)
    queue.stop_worker(gone)
    take(queue, alive, 2)
    assert [worker.id for worker in queue.live_workers()] == [alive, gone]
    held = queue.held()
    assert set(held) == {alive}
    assert (held[alive].shards, held[alive].until > clock.now) == (2, True)


def test_what_people_did_is_told_apart_from_what_runs_by_itself(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=1, user="ada"))
    worker = new_worker(queue)
    take(queue, worker)
    queue.hold(job.id, "root")
    every, people = queue.find_events(EventFilter()), queue.find_events(EventFilter(by_people=True))
    assert [event.id for event in every] == sorted((event.id for event in every), reverse=True)
    assert {event.actor for event in people} == {"ada", "root"}
    assert {event.actor for event in every} > {"ada", "root"}
    (held,) = queue.find_events(EventFilter(kind=EventKind.JOB_HELD))
    assert held.actor == "root"
    assert queue.find_events(EventFilter(actor="root"), before=held.id) == []


def test_a_reason_is_kept_by_every_event_of_what_was_done_for_it_and_by_no_other(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=2, user="ada"))
    queue.because("wrong model").cancel(job.id, "root")
    queue.because("moves to another group").set_shares("ada", 3, actor="root")
    queue.because(None).pause(actor="root")
    queue.resume(actor="root")
    told = [(event.kind, event.detail.get("reason")) for event in queue.events()]
    assert told.count((EventKind.SHARD_CANCELLED, "wrong model")) == 2
    assert (EventKind.JOB_CANCELLED, "wrong model") in told
    assert (EventKind.USER_CHANGED, "moves to another group") in told
    assert told[-2:] == [(EventKind.SETTING_CHANGED, None)] * 2
    assert queue.job(job.id).reason == "cancelled by root: wrong model"


def test_a_summary_of_nothing_is_nothing(queue: Queue) -> None:
    queue.create_user("new", Role.USER, actor="root")
    assert [*queue.job_figures("new"), *queue.archive_figures("new"), *queue.largest_archives("new")] == []
    assert (queue.live_workers(), queue.held()) == ([], {})
