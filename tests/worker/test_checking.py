"""A sample of tasks is run again alone; what that finds is with the job and its archive, whatever happens between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import Verified
from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import TaskError
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import EventKind, JobState
from ndif_batch.sweep.sample import sample
from ndif_batch.sweep.task import Task
from ndif_batch.worker.meter import Meter
from tests.worker.toy_engine import ToyCounters, ToyEngine
from tests.worker.working import IDLE, assert_right, submit, working


@dataclass
class Ticking:
    """A clock on which every look takes a second: a call of the engine, or a check, about two."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def off(task_id: int, by: float) -> ToyEngine:
    """An engine in which one task saves too much."""

    def after(task: Task, saves: dict[str, Any]) -> None:
        if task.id == task_id:
            saves["residual"] = saves["residual"] + np.float32(by)

    return ToyEngine(after=after)


def run(client: Client, engine: ToyEngine, alone: ToyEngine, **options: Any) -> ToyEngine:
    """Runs what waits, with time for every check; the engine of the checks."""
    meter = Meter(engine.counters, clock=lambda: 0.0)
    with working(client, engine, alone=alone, **{"meter": meter, **options}) as here:
        here.run()
    return alone


def checked(engine: ToyEngine) -> list[int]:
    return sorted(task.id for call in engine.calls for task in call)


def finished(job: JobHandle) -> Any:
    return job.results().attributes["verified"]


def test_a_sample_is_run_alone_and_what_it_finds_is_in_the_archive(client: Client) -> None:
    job = submit(client, verify_fraction=0.5, seed=1)
    alone = run(client, ToyEngine(), ToyEngine())
    expected = sorted(sample(1, 12, 0.5, range(12)))
    assert (checked(alone), {len(call) for call in alone.calls}) == (expected, {1})
    assert {layout for _, layout in alone.options} == {"solo"}
    found = job.verified()
    assert (found.tasks, found.deviating) == (len(expected), ())
    assert [(one.save, one.absolute) for one in found.deviations] == [("logit", 0.0), ("residual", 0.0)]
    assert finished(job) == found.to_json()
    assert_right(job)


@pytest.mark.parametrize(("tile", "tokens"), [((1, 1), 3), ((1, 3), 18), ((4, 3), 10**6)])
def test_the_sample_is_the_same_however_tasks_come_together(client: Client, tile: tuple[int, int], tokens: int) -> None:
    submit(client, tile=tile, verify_fraction=0.3, seed=4)
    alone = run(client, ToyEngine(), ToyEngine(), max_tokens=tokens)
    assert checked(alone) == sorted(sample(4, 12, 0.3, range(12)))


def test_a_deviation_beyond_rounding_is_told_and_the_job_ends(client: Client, logs: list[dict[str, Any]]) -> None:
    job = submit(client, verify_fraction=1.0)
    run(client, off(5, by=3), ToyEngine())
    assert job.refresh().state is JobState.COMPLETED
    found = job.verified()
    largest = next(one for one in found.deviations if one.save == "residual")
    assert (found.tasks, found.deviating) == (12, (5,))
    assert (largest.task, largest.absolute, largest.relative) == (5, 3.0, 3.0 / 125)
    assert finished(job) == found.to_json()
    events = [event for event in client.queue.events(job.id) if event.kind is EventKind.SHARD_DEVIATED]
    assert [event.detail["deviating"] for event in events] == [[5]]
    assert [line["log_level"] for line in logs if line["event"] == "shard.deviates"] == ["error"]


def test_several_workers_make_one_finding(client: Client) -> None:
    job = submit(client, verify_fraction=1.0)
    for task_id in (1, 4, 7, 10):
        with working(client, off(task_id, by=task_id), alone=ToyEngine(), meter=still(), max_tokens=9) as here:
            here.run(replace(IDLE, one=True))
    assert job.refresh().state is JobState.COMPLETED
    assert (job.verified().tasks, job.verified().deviating) == (12, (1, 4, 7, 10))
    assert finished(job)["deviations"]["residual"]["task"] == max(
        (1, 4, 7, 10), key=lambda task: task / (100 * (task // 3) + 10 * (task % 3) + 5)
    )


def test_a_check_that_is_committed_twice_counts_once_and_one_of_a_lost_lease_never(client: Client) -> None:
    job = submit(client, tile=(4, 3), verify_fraction=1.0)
    worker_id = client.queue.register_worker("toy", "here", 1)
    (lease,) = client.queue.lease(worker_id, "toy", 10**6, 30)
    check = Verified(3, (), (2,))
    stale = Finished(lease.shard.id, lease.shard.epoch - 1, check=Verified(9, (), (8,)))
    whole = Finished(lease.shard.id, lease.shard.epoch, check=check)
    assert client.queue.commit([stale]) == set()
    assert client.queue.commit([whole]) == client.queue.commit([whole]) == {lease.shard.id}
    assert job.verified() == check


def test_a_retried_shard_is_checked_anew(client: Client) -> None:
    def fails(task: Task) -> None:
        if task.id == 2:
            raise TaskError("the norm is NaN", node=3)

    job = submit(client, verify_fraction=1.0)
    run(client, ToyEngine(before=fails), ToyEngine(before=fails))
    assert (job.refresh().state, job.verified().tasks, job.verified().deviating) == (JobState.FAILED, 12, ())
    job.retry()
    assert job.verified().tasks == 9
    run(client, ToyEngine(), ToyEngine())
    assert (job.refresh().state, job.verified().tasks) == (JobState.COMPLETED, 12)
    assert finished(job)["tasks"] == 12


def test_a_task_that_fails_only_in_company_deviates_and_one_whose_pass_breaks_alone_does_not(client: Client) -> None:
    def fails(task: Task) -> None:
        if task.id == 2:
            raise TaskError("index 9 is out of range", node=1)

    def breaks(task: Task) -> None:
        if task.id == 6:
            raise TaskError("the model's pass failed: out of memory")

    job = submit(client, verify_fraction=1.0)
    run(client, ToyEngine(before=fails), ToyEngine(before=breaks))
    assert (job.verified().tasks, job.verified().deviating) == (11, (2,))


def test_a_check_that_breaks_costs_no_result(client: Client) -> None:
    def breaks(task: Task) -> None:
        raise RuntimeError("CUDA error")

    job = submit(client, verify_fraction=1.0)
    run(client, ToyEngine(), ToyEngine(before=breaks))
    assert job.verified() == Verified()
    assert_right(job)


@pytest.mark.parametrize("options", [{"verify_fraction": 0}, {"verify_fraction": 1.0, "layout": "solo"}])
def test_nothing_is_checked_if_the_job_wants_none_or_is_alone_anyway(client: Client, options: dict[str, Any]) -> None:
    job = submit(client, **options)
    assert run(client, ToyEngine(), ToyEngine()).calls == []
    assert finished(job) == Verified().to_json()


def test_what_is_reused_is_not_run_again(client: Client) -> None:
    submit(client, verify_fraction=0)
    run(client, ToyEngine(), ToyEngine())
    again = submit(client, verify_fraction=1.0, reuse=True)
    assert run(client, ToyEngine(), ToyEngine()).calls == []
    assert (again.refresh().state, again.verified()) == (JobState.COMPLETED, Verified())


def test_checks_take_a_fiftieth_of_the_time_and_their_passes_are_nobodys(client: Client) -> None:
    job = submit(client, repeats=100, tile=(1, 1, 10), verify_fraction=1.0)
    engine, alone = ToyEngine(), ToyEngine()
    meter = Meter(engine.counters, clock=Ticking())
    run(client, engine, alone, meter=meter)
    assert len(alone.calls) == job.verified().tasks
    assert 0.018 < meter.checking_seconds / meter.engine_seconds < 0.022
    assert job.results().attributes["sharing"]["tasks"] == 1200


def still() -> Meter:
    return Meter(ToyCounters(), clock=lambda: 0.0)
