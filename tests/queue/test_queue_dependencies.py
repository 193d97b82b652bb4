"""A job that comes after others begins when these are completed, and is cancelled if one is not."""

from __future__ import annotations

import pytest

from ndif_batch.errors import ConflictError, NotFoundError, UsageError
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.reasons import Standing, explained, waiting_reason
from ndif_batch.queue.records import JobRecord, JobState, TaskFailure
from ndif_batch.queue.store import Queue
from tests.queue.queue_samples import job_spec, kinds, new_worker, take


@pytest.fixture
def worker(queue: Queue) -> int:
    return new_worker(queue)


def submit(queue: Queue, *after: JobRecord, user: str = "ada", hold: bool = False) -> JobRecord:
    return queue.submit(job_spec(shards=1, user=user, after=tuple(one.id for one in after), hold=hold))


def run(queue: Queue, worker: int, *, failed: bool = False) -> int:
    """Run one shard; its job."""
    (lease,) = take(queue, worker)
    failures = [TaskFailure(lease.shard.first_task, "task", "no")] if failed else []
    queue.commit([Finished(lease.shard.id, lease.shard.epoch, failures)])
    return lease.job.id


def states(queue: Queue, *jobs: JobRecord) -> list[str]:
    return [queue.job(one.id).state.value for one in jobs]


def test_it_is_held_until_all_that_it_comes_after_is_completed(queue: Queue, worker: int) -> None:
    first, second = submit(queue), submit(queue)
    third = submit(queue, first, second)
    assert (third.state, third.awaiting, third.after) == (JobState.HELD, True, (first.id, second.id))
    standing = Standing([])
    assert waiting_reason(third, standing) == "Dependency"
    assert explained("Dependency", third, standing).startswith(
        f"Dependency: it comes after job {first.id} and {second.id}"
    )
    assert run(queue, worker) == first.id
    assert states(queue, third) == ["HELD"]
    assert run(queue, worker) == second.id
    assert (states(queue, third), queue.job(third.id).awaiting) == (["PENDING"], False)
    assert run(queue, worker) == third.id
    assert states(queue, third) == ["COMPLETED"]
    assert kinds(queue, third.id)[:2] == ["job.submitted", "job.released"]
    told = queue.events(third.id)
    assert told[0].detail["after"] == [first.id, second.id]
    assert (told[1].actor, told[1].detail["reason"]) == ("queue", f"job {first.id} and {second.id} is COMPLETED")


def test_one_that_fails_cancels_all_that_comes_after_it(queue: Queue, worker: int) -> None:
    first = submit(queue)
    second = submit(queue, first)
    third = submit(queue, second)
    run(queue, worker, failed=True)
    assert states(queue, first, second, third) == ["FAILED", "CANCELLED", "CANCELLED"]
    assert queue.job(second.id).reason == f"job {first.id}, after which it comes, is FAILED"
    assert queue.job(third.id).reason == f"job {second.id}, after which it comes, is CANCELLED"
    with pytest.raises(ConflictError, match=f"job {first.id} is FAILED, and nothing comes after it"):
        submit(queue, first)


def test_one_that_is_cancelled_or_kills_its_workers_does_too(queue: Queue, worker: int) -> None:
    cancelled, killer = submit(queue), submit(queue)
    after = [submit(queue, cancelled), submit(queue, killer)]
    queue.cancel(cancelled.id, "ada")
    assert states(queue, *after) == ["CANCELLED", "HELD"]
    for _ in range(3):
        victim = new_worker(queue)
        assert take(queue, victim)
        queue.lose_worker(victim, died=True, reason="gone", actor="test")
    assert states(queue, killer, *after) == ["FAILED", "CANCELLED", "CANCELLED"]


def test_after_completed_jobs_it_does_not_wait(queue: Queue, worker: int) -> None:
    first = submit(queue)
    run(queue, worker)
    second = submit(queue, first, hold=True)
    assert (second.state, second.awaiting) == (JobState.HELD, False)
    assert waiting_reason(second, Standing([])) == "Held"
    assert queue.release(second.id, "ada").state is JobState.PENDING
    assert queue.prerequisite(second.id, first.id) == queue.job(first.id)


def test_it_can_be_cancelled_and_not_released_while_it_waits(queue: Queue, worker: int) -> None:
    first = submit(queue)
    second, third = submit(queue, first), submit(queue, first)
    with pytest.raises(ConflictError, match=f"job {second.id} comes after {first.id} and begins by itself"):
        queue.release(second.id, "ada")
    queue.cancel(second.id, "ada")
    run(queue, worker)
    assert states(queue, second, third) == ["CANCELLED", "PENDING"]


def test_what_it_cannot_come_after_is_told_and_nothing_is_queued(queue: Queue) -> None:
    others = submit(queue, user="bob")
    mine = submit(queue)
    for after, kind, message in (
        ((others.id,), NotFoundError, f"there is no job {others.id}"),
        ((99,), NotFoundError, "there is no job 99"),
        ((mine.id,) * 65, UsageError, "after 64 others at most"),
    ):
        with pytest.raises(kind, match=message):
            queue.submit(job_spec(after=after))
    with pytest.raises(UsageError, match="is not put on hold"):
        submit(queue, mine, hold=True)
    assert len(queue.jobs()) == 2


def test_a_process_that_died_before_it_let_others_begin_is_made_up_for(
    queue: Queue, worker: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, failing = submit(queue), submit(queue)
    after = [submit(queue, first), submit(queue, failing)]
    with monkeypatch.context() as dead:
        dead.setattr(Queue, "_settle", lambda self, ended: None)
        run(queue, worker)
        run(queue, worker, failed=True)
    assert states(queue, *after) == ["HELD", "HELD"]
    queue.left_over(worker)
    assert states(queue, *after) == ["PENDING", "CANCELLED"]


def test_results_stay_while_a_job_waits_to_read_them(queue: Queue, worker: int) -> None:
    first = submit(queue)
    run(queue, worker)
    second = submit(queue, first)
    with pytest.raises(ConflictError, match=f"job {second.id} comes after job {first.id} and has not ended"):
        queue.give_up_results(first.id, "ada")
    assert queue.prerequisite(second.id, first.id) is not None
    run(queue, worker)
    queue.give_up_results(first.id, "ada")
    assert queue.prerequisite(second.id, first.id) is None
    with pytest.raises(ConflictError, match="were removed"):
        submit(queue, first)
