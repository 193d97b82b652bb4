"""A worker runs every task once, keeps jobs apart, and survives what goes wrong in one of them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import Results
from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import TaskError, UnavailableError, UsageError
from ndif_batch.queue import Queue
from ndif_batch.queue.database import Database
from ndif_batch.queue.records import JobState, Lease, ShardState, WorkerState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from ndif_batch.worker.ending import Until
from ndif_batch.worker.loop import pause
from ndif_batch.worker.progress import Progress
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, cut, submit, working


def states(client: Client, job_id: int) -> list[ShardState]:
    return [shard.state for shard in client.queue.shards(job_id)]


def test_a_job_ends_with_every_value_in_its_place(client: Client) -> None:
    job = submit(client, tile=(1, 2), seed=5)
    with working(client, ToyEngine()) as here:
        progress = here.run()
    assert progress == Progress(tasks_done=12, tasks_failed=0, shards_done=8)
    assert job.refresh().state is JobState.COMPLETED
    assert_right(job)


def test_tasks_of_many_jobs_run_in_one_call(client: Client) -> None:
    jobs = [submit(client, seed=seed) for seed in range(3)]
    engine = ToyEngine()
    with working(client, engine) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [36]
    for job in jobs:
        assert_right(job)
    sharing = jobs[0].results().attributes["sharing"]
    assert sharing == {"passes": 1, "tasks": 36, "jobs": 3, "tasks_per_pass": 36.0}


def test_a_job_that_asks_for_it_runs_by_itself(client: Client) -> None:
    submit(client)
    submit(client, layout="solo")
    submit(client, nan="error")
    submit(client, layout="solo")
    engine = ToyEngine()
    with working(client, engine) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [12] * 4
    assert engine.options == [("allow", "auto"), ("allow", "solo"), ("error", "auto"), ("allow", "solo")]


def test_the_lease_holds_no_more_tokens_than_asked(client: Client) -> None:
    submit(client)
    engine = ToyEngine()
    with working(client, engine, max_tokens=18) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [6, 6]


def saved(results: Results, *place: int) -> np.ndarray[Any, Any]:
    whole: np.ndarray[Any, Any] = np.asarray(results["residual"])
    found: np.ndarray[Any, Any] = whole[place]
    return found


def failing_at(task_id: int) -> Callable[[Task], None]:
    def before(task: Task) -> None:
        if task.id == task_id:
            raise TaskError("the norm is NaN", node=3)

    return before


def test_a_failed_task_is_reported_and_the_rest_is_saved(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine(failing_at(4))) as here:
        assert here.run() == Progress(12, 1, 4)
    assert job.refresh().state is JobState.FAILED
    (failure,) = job.failures()
    assert (failure.task, failure.code, failure.message, failure.node) == (4, "task", "the norm is NaN", 3)
    results = job.results()
    assert results.status().ravel().tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    assert np.isnan(results["residual"][1, 1]).all()
    assert saved(results, 1, 2).tolist() == [120, 121, 122, 123, 124, 125]
    assert results.attributes["state"] == "FAILED"


def test_a_retried_job_runs_its_failed_shards_again(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine(failing_at(4))) as here:
        here.run()
        job.retry()
    engine = ToyEngine()
    with working(client, engine) as here:
        here.run()
    assert [task.id for task in engine.calls[0]] == [3, 4, 5]
    assert job.refresh().state is JobState.COMPLETED
    assert_right(job)


def test_a_value_that_does_not_fit_its_array_fails_its_task_only(client: Client) -> None:
    job = submit(client)

    def too_long(task: Task, saves: dict[str, Any]) -> None:
        if task.id == 2:
            saves["residual"] = np.zeros(7, dtype=np.float32)

    with working(client, ToyEngine(after=too_long)) as here:
        here.run()
    (failure,) = job.failures()
    assert failure.task == 2
    assert failure.message == "'residual' came out as float32[7]; the archive has room for float32[6]"


def test_ragged_values_are_stored_with_their_lengths(client: Client) -> None:
    space = Space((Axis("prompt", {"prompt": ["the cat", "the cat sat on"]}),), {"layer": 2})
    job = client.submit(client.prepare(toy.whole(), space, toy.NAME))
    with working(client, ToyEngine()) as here:
        here.run()
    results = job.results()
    assert results["residual"].shape == (2, 4, 6)
    assert saved(results, 0, 1).tolist() == [8, 9, 10, 11, 12, 13]
    assert np.isnan(results["residual"][0, 2:]).all()


def test_one_bad_job_does_not_take_the_others_down(client: Client) -> None:
    good, bad, other = (submit(client, seed=seed) for seed in range(3))

    def before(task: Task) -> None:
        if task.seed in bad_seeds:
            raise UsageError("the graph asks for the impossible")

    space = Space.from_json(bad.record.space)
    from ndif_batch.sweep.task import make_task

    bad_seeds = {make_task(toy.reading(), space, 1, task).seed for task in range(12)}
    with working(client, ToyEngine(before)) as here:
        here.run()
    assert_right(good)
    assert_right(other)
    assert bad.refresh().state is JobState.FAILED
    assert bad.failures()[0].message == "the graph asks for the impossible"
    assert (bad.results().status() == 0).all()


def test_a_call_that_fails_for_a_passing_reason_is_tried_again_later(client: Client) -> None:
    job = submit(client)
    attempts: list[int] = []

    def before(task: Task) -> None:
        attempts.append(task.id)
        raise RuntimeError("CUDA error: launch failure")

    with working(client, ToyEngine(before)) as here:
        here.run(Until(one=True))
    assert job.refresh().state is JobState.RUNNING
    assert {(shard.state, shard.attempts) for shard in client.queue.shards(job.id)} == {(ShardState.PENDING, 1)}


def test_a_job_that_cannot_be_read_fails_alone(client: Client) -> None:
    good = submit(client)
    bad = submit(client, name="bad")
    store = bad.record.store
    store.mkdir(parents=True)
    (store / "zarr.json").write_text("someone else's")
    with working(client, ToyEngine()) as here:
        here.run()
    assert_right(good)
    assert bad.refresh().state is JobState.FAILED
    assert "archive" in bad.failures()[0].message


def test_a_cancelled_job_is_dropped_while_its_neighbour_goes_on(client: Client) -> None:
    good, bad = submit(client), submit(client)
    seen: list[int] = []

    def before(task: Task) -> None:
        if not seen:
            bad.cancel()
            here.heart.beat()
        seen.append(task.id)

    with working(client, ToyEngine(before)) as here:
        here.run()
    assert_right(good)
    assert bad.refresh().state is JobState.CANCELLED
    assert set(states(client, bad.id)) == {ShardState.CANCELLED}
    assert (bad.results().status() == 0).all()


def test_an_archive_that_is_deleted_while_its_job_runs_fails_that_job_alone(client: Client) -> None:
    good, bad = submit(client), submit(client)

    def before(task: Task) -> None:
        shutil.rmtree(bad.record.store, ignore_errors=True)

    with working(client, ToyEngine(before)) as here:
        here.run()
    assert_right(good)
    assert bad.refresh().state is JobState.FAILED
    assert "there is no archive" in bad.failures()[0].message


def test_a_worker_that_slept_past_its_lease_changes_nothing(client: Client) -> None:
    job = submit(client)

    def before(task: Task) -> None:
        if task.id == 11:
            client.queue.lose_worker(here.id, died=False, reason="silent", actor="test")
            with working(client, ToyEngine()) as other:
                other.run()
            assert job.refresh().state is JobState.COMPLETED

    with working(client, ToyEngine(before)) as here:
        assert here.run().shards_done == 0
    assert_right(job)


def test_what_the_worker_was_asked_to_drain_goes_back_and_another_finishes(client: Client) -> None:
    job = submit(client)
    now = 0.0

    def before(task: Task) -> None:
        nonlocal now
        if task.id == 7:
            here.heart.draining.ask("a test")
        if task.id <= 7:
            now += 0.5

    with working(client, ToyEngine(before), clock=lambda: now) as here:
        progress = here.run()
    assert progress == Progress(tasks_done=9, tasks_failed=0, shards_done=3)
    assert states(client, job.id) == [ShardState.PENDING] + [ShardState.DONE] * 3
    assert [shard.attempts for shard in client.queue.shards(job.id)] == [0] * 4
    engine = ToyEngine()
    with working(client, engine) as other:
        other.run()
    assert [task.id for task in engine.calls[0]] == [0, 1, 2]
    assert_right(job)


def test_the_queue_can_ask_a_worker_to_drain(client: Client) -> None:
    submit(client)
    with working(client, ToyEngine()) as here:
        client.queue.drain_worker(here.id, "ada")
        here.heart.beat()
        assert here.run() == Progress()
    (record,) = client.queue.workers()
    assert record.state is WorkerState.STOPPED


@pytest.mark.parametrize("room", [0, 25, 31, 37])
def test_a_full_disk_stops_the_worker_and_loses_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    job = submit(client)
    writes: list[int] = []

    def full(descriptor: int) -> None:
        writes.append(descriptor)
        if len(writes) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    with working(client, ToyEngine()) as here, monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UnavailableError, match="No space left on device"):
            here.run()
    assert job.refresh().state is JobState.RUNNING
    assert set(states(client, job.id)) <= {ShardState.PENDING, ShardState.DONE}
    assert {shard.attempts for shard in client.queue.shards(job.id)} == {0}
    with working(client, ToyEngine()) as here:
        here.run()
    assert_right(job)


def test_an_archive_whose_last_worker_died_before_the_manifest_is_finished_by_the_next(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine()) as here:
        here.run()
    manifest = job.record.store / "task_status" / "SHA256SUMS"
    manifest.unlink()
    with working(client, ToyEngine()) as here:
        here.run()
    assert manifest.exists()
    assert_right(job)


def test_an_archive_that_a_living_worker_may_be_finishing_is_left_to_it(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine()) as other:
        other.run()
        manifest = job.record.store / "task_status" / "SHA256SUMS"
        manifest.unlink()
        with working(client, ToyEngine()) as here:
            here.run()
    assert not manifest.exists()


def test_the_archive_tells_what_the_job_was(client: Client) -> None:
    job = submit(client, name="patching", seed=3)
    with working(client, ToyEngine()) as here:
        here.run()
    attributes = job.results().attributes
    assert attributes["job"]["name"] == "patching"
    assert attributes["job"]["seed"] == 3
    assert attributes["graph"] == job.record.graph
    assert attributes["space"] == job.record.space
    assert attributes["model"] == {
        "name": "toy",
        "source": "here",
        "revision": "r1",
        "digest": "d" * 64,
        "dtype": "float32",
    }
    assert attributes["tokens"] == ["the", "cat", "sat"]
    assert attributes["runtime"]["device"] == "cpu"
    assert {"ndif-batch", "torch", "transformers"} <= set(attributes["runtime"]["versions"])


def test_a_worker_ends_after_the_idle_time_that_it_is_given(client: Client) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.5
        return now

    with working(client, ToyEngine(), clock=clock) as here:
        assert here.run(Until(idle_seconds=1.0)) == Progress()
    submit(client, hold=True)
    with working(client, ToyEngine()) as here:
        assert here.run(Until(idle=True)) == Progress()


class Watched(Queue):
    """A queue that does something at each look for work, and counts the leases that are asked for."""

    leases = 0
    looks: Iterator[Callable[[], object]]

    def has_work(self, model: str) -> bool:
        next(self.looks)()
        return super().has_work(model)

    def lease(self, *args: Any, **options: Any) -> list[Lease]:
        self.leases += 1
        return super().lease(*args, **options)


def test_an_idle_worker_asks_for_a_lease_only_when_there_is_work(client: Client) -> None:
    job: list[JobHandle] = []
    asked: list[int] = []

    def look() -> None:
        asked.append(queue.leases)

    def end() -> None:
        look()
        here.heart.draining.ask("a test")

    queue = Watched(Database(client.settings.database))
    queue.looks = iter([look, look, lambda: job.append(submit(client)), look, end])
    with queue, working(client, ToyEngine(), queue=queue) as here:
        assert here.run(Until()).shards_done == 4
    assert_right(job[0])
    assert asked == [1, 1, 3, 3], "the second took the job, and the third found no more"


def test_the_longer_a_worker_is_idle_the_seldomer_it_looks_but_once_a_second() -> None:
    now, looks = 0.0, []
    while now < 10:
        looks.append(pause(now))
        now += looks[-1]
    assert looks[:5] == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.8])
    assert set(looks[5:]) == {1.0}


def test_progress_is_told_as_it_happens(client: Client) -> None:
    submit(client)
    told: list[Progress] = []
    with working(client, ToyEngine(), on_progress=told.append) as here:
        here.run()
    assert told[0] == Progress(1, 0, 0)
    assert told[-1] == Progress(12, 0, 4)


def test_solo_work_of_two_tiles_is_cut_as_planned(client: Client) -> None:
    plan = client.prepare(toy.whole(), Space((Axis("layer", {"layer": range(4)}),), {"prompt": "the cat"}), toy.NAME)
    job = client.submit(cut(plan, (3,)))
    with working(client, ToyEngine()) as here:
        here.run()
    assert [(shard.first_task, shard.tasks) for shard in client.queue.shards(job.id)] == [(0, 3), (3, 1)]
    assert saved(job.results(), 3, 0).tolist() == [3, 4, 5, 6, 7, 8]
