"""Jobs are taken in once, told apart, held, released, cancelled and tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ndif_batch.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobContent, JobState, ShardState, TaskFailure
from ndif_batch.queue.store import Queue
from tests.queue.queue_samples import MODEL, indices, job_spec, kinds, new_worker, take


def test_a_job_comes_back_as_it_was_submitted(queue: Queue) -> None:
    spec = job_spec(key="k", priority=3, options={"nan": "error", "list": [1, None, "é"]})
    job = queue.submit(spec)
    for field in JobContent.__dataclass_fields__:
        assert getattr(job, field) == getattr(spec, field)
    assert str(job.graph["floats"]) == "[1e-07, -0.0]"
    assert (job.state, job.shards, job.tasks_done, job.tasks_failed) == (JobState.PENDING, 4, 0, 0)
    assert (job.started_at, job.finished_at, job.reason) == (None, None, None)
    assert queue.job(job.id) == job


def test_shards_are_blocks_of_tasks_in_order(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=3, each=7))
    found = [(s.index, s.first_task, s.tasks, s.state, s.epoch) for s in queue.shards(job.id)]
    assert found == [(i, 7 * i, 7, ShardState.PENDING, 0) for i in range(3)]


@pytest.mark.parametrize("shards", [[], [(0, 10), (11, 29)], [(0, 10)], [(0, 0), (0, 40)], [(0, 41)]])
def test_shards_that_miss_or_repeat_a_task_are_refused(queue: Queue, shards: list[tuple[int, int]]) -> None:
    with pytest.raises(UsageError, match="shard"):
        queue.submit(replace(job_spec(shards=4, each=10), shards=shards))
    assert queue.jobs() == []


def test_a_graph_is_stored_once_and_found_by_its_digest(queue: Queue) -> None:
    spec = job_spec()
    queue.submit(spec)
    queue.submit(job_spec())
    assert queue.graph(spec.graph_digest) == spec.graph
    with pytest.raises(NotFoundError, match="no graph beef"):
        queue.graph("beef")


def test_the_same_key_gives_the_same_job_to_its_user_only(queue: Queue) -> None:
    first = queue.submit(job_spec(key="monday"))
    assert queue.submit(job_spec(key="monday", name="again")) == first
    assert queue.submit(job_spec(key="monday", user="bob")).id != first.id
    assert queue.submit(job_spec()).id != queue.submit(job_spec()).id
    assert len(queue.jobs(user="ada")) == 3


def test_a_key_that_stands_for_another_experiment_is_refused(queue: Queue) -> None:
    first = queue.submit(job_spec(key="monday"))
    with pytest.raises(ConflictError, match=f"key 'monday' is taken by job {first.id}, whose seed differs"):
        queue.submit(job_spec(key="monday", seed=8))


def test_an_unknown_model_is_refused_with_the_nearest_name(queue: Queue) -> None:
    with pytest.raises(NotFoundError, match=r"no model 'smolm2'\n  hint: did you mean 'smollm2'"):
        queue.submit(job_spec(model="smolm2"))


def test_a_disabled_model_takes_no_jobs(queue: Queue) -> None:
    queue.add_model(replace(MODEL, enabled=False))
    with pytest.raises(ConflictError, match="'smollm2' is disabled"):
        queue.submit(job_spec())


def test_a_model_may_move_but_not_change_its_weights(queue: Queue) -> None:
    moved = queue.add_model(replace(MODEL, path="/elsewhere"))
    assert queue.model(MODEL.name) == moved
    assert moved.path == "/elsewhere"
    with pytest.raises(ConflictError, match="exists with other weights"):
        queue.add_model(replace(MODEL, digest="0ther"))
    assert queue.models() == [moved]


def test_a_model_is_removed_when_no_job_of_it_is_open(queue: Queue) -> None:
    job = queue.submit(job_spec())
    queue.pin_model(MODEL.name, 2, actor="root")
    with pytest.raises(ConflictError, match="1 jobs of model"):
        queue.remove_model(MODEL.name, actor="root")
    queue.cancel(job.id, "ada")
    assert not queue.remove_model(MODEL.name, actor="root").enabled
    assert queue.settings() == {f"pin:{MODEL.name}": 0}
    assert [event.actor for event in queue.events(limit=2)] == ["root", "root"]
    with pytest.raises(ConflictError, match="was removed"):
        queue.load_model(MODEL.name, actor="root")
    assert queue.add_model(replace(MODEL, enabled=True), "root").enabled
    queue.submit(job_spec())


def test_a_job_that_is_given_priority_is_leased_first(queue: Queue) -> None:
    first, second = (queue.submit(job_spec(shards=1)).id for _ in range(2))
    assert queue.set_priority(second, 3, "ada").priority == 3
    assert [lease.shard.job_id for lease in take(queue, new_worker(queue), 1)] == [second]
    told = queue.events(second)[1]
    assert (str(told.kind), told.actor, told.detail) == ("job.prioritized", "ada", {"priority": 3, "before": 0})
    queue.cancel(first, "ada")
    with pytest.raises(ConflictError, match="is CANCELLED and has no turn any more"):
        queue.set_priority(first, 0, "ada")
    with pytest.raises(NotFoundError):
        queue.set_priority(999, 0, "ada")


def test_where_there_is_an_administrator_only_they_give_more_than_others_have(queue: Queue) -> None:
    job = queue.submit(job_spec(priority=5))
    queue.set_role("root", Role.ADMIN, actor="root")
    assert queue.set_priority(job.id, -3, "ada").priority == -3
    refused = "may not give the priority 1: users give 0 and less"
    with pytest.raises(NotAllowedError, match=refused):
        queue.set_priority(job.id, 1, "ada")
    with pytest.raises(NotAllowedError, match=refused):
        queue.submit(job_spec(priority=1))
    assert queue.set_priority(job.id, 7, "root").priority == 7


def test_jobs_are_listed_newest_first_page_by_page(queue: Queue) -> None:
    ids = [queue.submit(job_spec(user=user)).id for user in ("ada", "bob", "ada")]
    assert [job.id for job in queue.jobs()] == ids[::-1]
    assert [job.id for job in queue.jobs(user="ada")] == [ids[2], ids[0]]
    assert [job.id for job in queue.jobs(limit=1, before=ids[2])] == [ids[1]]
    queue.cancel(ids[0], "ada")
    assert [job.id for job in queue.jobs(state=JobState.CANCELLED)] == [ids[0]]


def test_a_job_runs_from_its_first_lease_and_completes_with_its_last_shard(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=2))
    worker = new_worker(queue)
    (first,) = take(queue, worker)
    assert first.job.state is JobState.RUNNING
    assert queue.commit([Finished(first.shard.id, first.shard.epoch)])
    assert queue.job(job.id).state is JobState.RUNNING
    (second,) = take(queue, worker)
    assert queue.commit([Finished(second.shard.id, second.shard.epoch)])
    ended = queue.job(job.id)
    assert (ended.state, ended.tasks_done, ended.reason) == (JobState.COMPLETED, 20, None)
    assert ended.started_at is not None
    assert ended.finished_at is not None


def test_a_job_with_failed_tasks_fails_and_keeps_the_rest(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=2))
    first, second = take(queue, new_worker(queue), 2)
    oom = TaskFailure(3, "shape", "node 7 (getitem): position 20 is outside", 7)
    assert queue.commit([Finished(first.shard.id, first.shard.epoch, [oom])])
    assert queue.fail(second.shard.id, second.shard.epoch, "disk_full", "no space left", retryable=False)
    ended = queue.job(job.id)
    assert (ended.state, ended.tasks_done, ended.tasks_failed) == (JobState.FAILED, 9, 11)
    assert ended.reason == "11 of 20 tasks failed"
    expected = [oom, TaskFailure(10, "disk_full", "no space left"), TaskFailure(11, "disk_full", "no space left")]
    assert queue.failures(job.id, limit=3) == expected
    assert len(queue.failures(job.id)) == 11
    assert [one.task for one in queue.failures(job.id, limit=3, after=expected[2].task)] == [12, 13, 14]
    assert queue.failures(job.id, after=19) == []


def test_failures_outside_the_shard_are_refused_whole(queue: Queue) -> None:
    queue.submit(job_spec())
    (lease,) = take(queue, new_worker(queue))
    failure = TaskFailure(10, "task", "not mine")
    with pytest.raises(UsageError, match="task 10 is not in shard"):
        queue.commit([Finished(lease.shard.id, lease.shard.epoch, [failure])])
    with pytest.raises(UsageError, match="failed twice"):
        queue.commit([Finished(lease.shard.id, lease.shard.epoch, [replace(failure, task=1)] * 2)])
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])


def test_a_held_job_is_not_leased_until_it_is_released(queue: Queue) -> None:
    job = queue.submit(job_spec(hold=True))
    worker = new_worker(queue)
    assert job.state is JobState.HELD
    assert take(queue, worker) == []
    assert queue.release(job.id, "ada").state is JobState.PENDING
    assert indices(take(queue, worker)) == [0]


def test_a_hold_lets_leased_shards_end_and_release_goes_on_running(queue: Queue) -> None:
    job = queue.submit(job_spec())
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    assert queue.hold(job.id, "ada").state is JobState.HELD
    assert take(queue, worker) == []
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.release(job.id, "ada").state is JobState.RUNNING


def test_a_held_job_completes_when_its_last_shard_was_already_leased(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=1))
    (lease,) = take(queue, new_worker(queue))
    queue.hold(job.id, "ada")
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.job(job.id).state is JobState.COMPLETED


def test_cancel_takes_leased_shards_from_their_workers_and_keeps_what_is_done(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=3))
    worker = new_worker(queue)
    first, second = take(queue, worker, 2)
    queue.commit([Finished(first.shard.id, first.shard.epoch)])
    queue.heartbeat(worker, 60, {second.shard.id: 4})
    ended = queue.cancel(job.id, "root")
    assert (ended.state, ended.tasks_done, ended.reason) == (JobState.CANCELLED, 10, "cancelled by root")
    assert [s.state for s in queue.shards(job.id)] == [ShardState.DONE, ShardState.CANCELLED, ShardState.CANCELLED]
    assert queue.heartbeat(worker, 60, {second.shard.id: 5}).lost == (second.shard.id,)
    assert not queue.commit([Finished(second.shard.id, second.shard.epoch)])
    assert not queue.fail(second.shard.id, second.shard.epoch, "io", "late", retryable=True)
    assert not queue.give_back(second.shard.id, second.shard.epoch)
    assert queue.job(job.id) == ended


def test_retry_puts_back_failed_shards_and_those_with_failed_tasks(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=3))
    worker = new_worker(queue)
    for lease, failures in zip(take(queue, worker, 2), ([], [TaskFailure(12, "task", "boom")]), strict=True):
        queue.commit([Finished(lease.shard.id, lease.shard.epoch, failures)])
    (last,) = take(queue, worker)
    queue.fail(last.shard.id, last.shard.epoch, "bug", "boom", retryable=False)
    again = queue.retry(job.id, "ada")
    assert (again.state, again.tasks_done, again.tasks_failed) == (JobState.RUNNING, 10, 0)
    assert (again.finished_at, again.reason) == (None, None)
    assert queue.failures(job.id) == []
    leases = take(queue, worker, 3)
    assert [(lease.shard.index, lease.shard.attempts) for lease in leases] == [(1, 0), (2, 0)]
    for lease in leases:
        assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.job(job.id).state is JobState.COMPLETED


def test_a_retried_job_with_nothing_saved_waits_again(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=1))
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    queue.fail(lease.shard.id, lease.shard.epoch, "bug", "boom", retryable=False)
    again = queue.retry(job.id, "ada")
    assert (again.state, again.started_at) == (JobState.PENDING, None)
    assert indices(take(queue, worker)) == [0]


def test_a_running_job_can_retry_what_has_failed_so_far(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=2))
    worker = new_worker(queue)
    first, second = take(queue, worker, 2)
    with pytest.raises(ConflictError, match="has no failed tasks"):
        queue.retry(job.id, "ada")
    queue.fail(first.shard.id, first.shard.epoch, "bug", "boom", retryable=False)
    assert queue.retry(job.id, "ada").state is JobState.RUNNING
    assert queue.commit([Finished(second.shard.id, second.shard.epoch)])
    assert queue.job(job.id).state is JobState.RUNNING


def test_what_a_state_does_not_permit_is_refused_and_changes_nothing(queue: Queue) -> None:
    job = queue.submit(job_spec())
    with pytest.raises(ConflictError, match="is PENDING and cannot be released"):
        queue.release(job.id, "ada")
    with pytest.raises(ConflictError, match="is PENDING and cannot be retried"):
        queue.retry(job.id, "ada")
    ended = queue.cancel(job.id, "ada")
    for change in (queue.cancel, queue.hold, queue.release, queue.retry):
        with pytest.raises(ConflictError, match="is CANCELLED and cannot be"):
            change(job.id, "ada")
    assert queue.job(job.id) == ended


def test_a_job_that_does_not_exist_is_named(queue: Queue) -> None:
    reads: tuple[Callable[[int], object], ...] = (queue.job, queue.shards, queue.failures, queue.events)
    for ask in (*reads, *(lambda i, f=f: f(i, "ada") for f in (queue.cancel, queue.hold, queue.release, queue.retry))):
        with pytest.raises(NotFoundError, match="there is no job 99"):
            ask(99)


def test_every_transition_is_told_with_its_actor_and_reason(queue: Queue) -> None:
    job = queue.submit(job_spec(shards=2, hold=True))
    queue.release(job.id, "root")
    worker = new_worker(queue)
    first, second = take(queue, worker, 2)
    queue.fail(first.shard.id, first.shard.epoch, "bug", "boom", retryable=False)
    queue.give_back(second.shard.id, second.shard.epoch)
    queue.cancel(job.id, "ada")
    story = [(str(event.kind), event.actor) for event in queue.events(job.id)]
    me = f"worker {worker}"
    assert story == [
        ("job.submitted", "ada"),
        ("job.released", "root"),
        ("shard.leased", me),
        ("shard.leased", me),
        ("job.started", me),
        ("shard.failed", me),
        ("shard.returned", me),
        ("shard.cancelled", "ada"),
        ("job.cancelled", "ada"),
    ]
    events = queue.events(job.id)
    assert events[5].detail == {"code": "bug", "reason": "boom", "attempts": 1}
    assert (events[5].shard_id, events[5].worker_id) == (first.shard.id, worker)
    assert events[-1].detail == {"state": "CANCELLED", "reason": "cancelled by ada"}
    assert queue.events(job.id, limit=2) == events[-2:]
    assert queue.events(job.id, limit=2, before=events[-2].id) == events[-4:-2]
    assert kinds(queue, job.id) == [kind for kind, _ in story]


@pytest.mark.parametrize("shards", [1, 3])
def test_what_a_lease_and_a_commit_tell_has_its_details(queue: Queue, shards: int) -> None:
    job = queue.submit(job_spec(shards=shards))
    leases = take(queue, new_worker(queue), shards)
    queue.commit([Finished(lease.shard.id, lease.shard.epoch) for lease in leases])
    told = [(str(event.kind), event.detail) for event in queue.events(job.id)]
    tasks = leases[0].shard.tasks
    assert [detail for kind, detail in told if kind == "shard.leased"] == [{}] * shards
    assert [detail for kind, detail in told if kind == "job.started"] == [{"state": "RUNNING"}]
    done = {"tasks_done": tasks, "tasks_failed": 0}
    assert [detail for kind, detail in told if kind == "shard.done"] == [done] * shards
