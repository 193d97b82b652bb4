"""Which results a new job may take, and what becomes of results that are given up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ndif_batch.errors import ConflictError, NotAllowedError
from ndif_batch.queue import results
from ndif_batch.queue.cluster import Cost, Quotas, Role
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, JobRecord, JobState, TaskFailure
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import MODEL, job_spec, kinds, new_worker, take

SAME = "i" * 64
DAY = 86_400


def submitted(queue: Queue, **changes: Any) -> JobRecord:
    return queue.submit(job_spec(**{"shards": 1, "identity": SAME, **changes}))


def done(queue: Queue, job: JobRecord, failed: int = 0) -> JobRecord:
    """The job after all of its shards; so many tasks of each failed."""
    worker = new_worker(queue)
    for shard in range(job.shards):
        (lease,) = take(queue, worker)
        first = lease.shard.first_task
        failures = [TaskFailure(first + task, "task", "boom") for task in range(failed)]
        assert queue.commit([Finished(lease.shard.id, lease.shard.epoch, failures)]), shard
    return queue.job(job.id)


def reused(queue: Queue, **changes: Any) -> list[int]:
    """What a new job may take from."""
    job = submitted(queue, **changes)
    assert {key: value for key, value in job.options.items() if key != "reuse"} == {"nan": "allow"}
    queue.cancel(job.id, "ada")
    found: list[int] = job.options.get("reuse", [])
    return found


def test_earlier_jobs_of_the_same_user_and_identity_are_named_newest_first(queue: Queue) -> None:
    first = done(queue, submitted(queue))
    running = submitted(queue)
    assert reused(queue) == [running.id, first.id]
    assert queue.events(running.id)[0].detail == {"tasks": 10, "shards": 1, "held": False, "reuse": [first.id]}
    assert [job.id for job in queue.earlier("ada", SAME)] == [running.id, first.id]
    assert reused(queue, user="bob") == reused(queue, identity="j" * 64) == reused(queue, identity=None) == []
    assert reused(queue, reuse=False) == []


def test_a_job_without_an_identity_is_nobodys_source(queue: Queue) -> None:
    done(queue, submitted(queue, identity=None))
    assert reused(queue, identity=None) == reused(queue) == []


def test_an_ended_job_that_saved_nothing_is_left_out(queue: Queue) -> None:
    queue.cancel(submitted(queue).id, "ada")
    failed = submitted(queue)
    done(queue, failed, failed=10)
    partly = done(queue, submitted(queue, key="k"), failed=9)
    assert partly.state is JobState.FAILED
    assert reused(queue) == [partly.id]


def test_no_more_than_the_newest_jobs_are_named(queue: Queue) -> None:
    ids = [submitted(queue).id for _ in range(results.EARLIER + 3)]
    assert reused(queue) == ids[:2:-1]


def test_the_same_key_gives_the_same_job_whatever_has_been_saved_meanwhile(queue: Queue) -> None:
    first = submitted(queue, key="k")
    done(queue, submitted(queue, key="other"))
    again = submitted(queue, key="k")
    assert (again.id, again.options) == (first.id, {"nan": "allow"})


def test_given_up_results_are_no_source_and_count_until_they_are_deleted(queue: Queue, clock: HandClock) -> None:
    queue.set_quotas("ada", Quotas(archive_bytes=1000), actor="root")
    job = done(queue, submitted(queue, archive_bytes=1000))
    clock.forward(60)
    given_up = queue.give_up_results(job.id, "ada")
    assert (given_up.removed_at, given_up.archive_bytes) == (clock.now, 1000)
    assert [one.id for one in queue.given_up()] == [job.id]
    with pytest.raises(NotAllowedError, match="1,001 archive bytes"):
        submitted(queue, archive_bytes=1)
    clock.forward(60)
    assert queue.give_up_results(job.id, "ada") == given_up
    queue.results_deleted(job.id)
    assert queue.given_up() == []
    assert reused(queue, archive_bytes=1000) == []
    assert kinds(queue, job.id).count(EventKind.RESULTS_REMOVED) == 1
    assert queue.events(job.id)[-1].detail == {"bytes": 1000}


def test_results_go_only_when_their_job_has_ended_and_by_whose_they_are(queue: Queue) -> None:
    job = submitted(queue)
    with pytest.raises(ConflictError, match="is PENDING; its results cannot go yet"):
        queue.give_up_results(job.id, "ada")
    done(queue, job)
    with pytest.raises(NotAllowedError, match="belongs to 'ada', not to 'bob'"):
        queue.give_up_results(job.id, "bob")
    queue.set_role("bob", Role.USER, actor="root")
    with pytest.raises(NotAllowedError, match="belongs to 'ada'"):
        queue.give_up_results(job.id, "bob")
    queue.set_role("bob", Role.ADMIN, actor="root")
    assert queue.give_up_results(job.id, "bob").removed_at is not None


def test_results_that_nobody_gave_up_are_not_counted_as_deleted(queue: Queue) -> None:
    job = done(queue, submitted(queue, archive_bytes=5))
    queue.results_deleted(job.id)
    assert queue.job(job.id).archive_bytes == 5


def test_a_job_without_its_results_is_not_retried(queue: Queue) -> None:
    job = done(queue, submitted(queue), failed=1)
    queue.give_up_results(job.id, "ada")
    with pytest.raises(ConflictError, match="the results of job 1 were removed"):
        queue.retry(job.id, "ada")
    assert queue.job(job.id) == queue.give_up_results(job.id, "ada")


def test_results_expire_so_many_days_after_their_job_has_ended_and_say_so(queue: Queue, clock: HandClock) -> None:
    kept, forever, short = (submitted(queue, key=str(days), retention_days=days) for days in (30, None, 1))
    clock.forward(40 * DAY)
    for job in (kept, forever, short):
        done(queue, job)
    assert queue.expire_results("scheduler") == []
    assert queue.job(kept.id).expires_at == clock.now + timedelta(days=30)
    assert queue.job(forever.id).expires_at is None
    clock.forward(DAY - 1)
    assert queue.expire_results("scheduler") == []
    clock.forward(2)
    assert queue.expire_results("scheduler") == [short.id]
    clock.forward(29 * DAY)
    assert queue.expire_results("scheduler") == [kept.id]
    assert queue.expire_results("scheduler") == []
    told = queue.events(kept.id)[-1]
    assert (told.kind, told.actor, told.detail["reason"]) == ("results.removed", "scheduler", "kept for 30 days")
    assert queue.job(forever.id).removed_at is None


def test_a_job_that_waits_runs_or_is_retried_does_not_expire(queue: Queue, clock: HandClock) -> None:
    waiting = submitted(queue, key="a", retention_days=1, hold=True)
    again = submitted(queue, key="b", retention_days=1)
    done(queue, again, failed=1)
    clock.forward(3 * DAY)
    queue.retry(again.id, "ada")
    assert queue.expire_results("scheduler") == []
    assert [queue.job(job.id).removed_at for job in (waiting, again)] == [None, None]


def test_expired_results_are_no_source_and_count_until_they_are_deleted(queue: Queue, clock: HandClock) -> None:
    job = done(queue, submitted(queue, archive_bytes=1000, retention_days=2))
    clock.forward(2 * DAY)
    assert queue.expire_results("scheduler") == [job.id]
    assert [one.id for one in queue.given_up()] == [job.id]
    assert reused(queue) == []


def test_ended_jobs_are_told_by_the_time_of_their_end(queue: Queue, clock: HandClock) -> None:
    first, second, third = (submitted(queue, key=key) for key in "abc")
    began = clock.now
    for job in (first, second):
        clock.forward(60)
        done(queue, job)
    ended = queue.ended_between(began, clock.now, 10)
    assert [job.id for job in ended] == [first.id, second.id]
    assert [job.id for job in queue.ended_between(began, clock.now, 1)] == [first.id]
    assert queue.ended_between(clock.now, clock.now, 10) == []
    assert third.id not in {job.id for job in ended}


def test_the_speed_of_a_model_is_what_went_through_it_without_what_sharing_spared(
    queue: Queue, clock: HandClock
) -> None:
    assert queue.tokens_per_second(MODEL.name) is None
    submitted(queue, shards=2)
    for cost in (Cost(2.0, 500, 400), Cost(1.0, 250, 50)):
        (lease,) = take(queue, new_worker(queue))
        queue.commit([Finished(lease.shard.id, lease.shard.epoch, cost=cost)])
    assert queue.tokens_per_second(MODEL.name) == pytest.approx((100 + 200) / 3)
    assert queue.tokens_per_second("other") is None
    clock.forward(8 * DAY)
    assert queue.tokens_per_second(MODEL.name) is None


def test_who_runs_how_many_shards_is_counted(queue: Queue) -> None:
    submitted(queue, shards=3)
    submitted(queue, user="bob")
    assert queue.running_shards() == {}
    take(queue, new_worker(queue), 4)
    assert queue.running_shards() == {"ada": 3, "bob": 1}
