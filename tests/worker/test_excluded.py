"""Points that a space excludes are not run, cost nothing, and are told apart from what waits or failed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import SweepError
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Rule, Space
from ndif_batch.sweep.task import Task
from tests import toy
from tests.worker.test_reuse import by_bindings
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import cut, working

AXES = (Axis("layer", {"layer": range(4)}), Axis("position", {"position": range(3)}))
PROMPTS = {"prompt": "the cat sat", "answer": "Paris"}
RULES = (Rule(False, {"layer": [1]}), Rule(False, {"layer": [2], "position": [0, 2]}))
SKIPPED = [3, 4, 5, 6, 8]
RUN = [0, 1, 2, 7, 9, 10, 11]


def submit(client: Client, rules: tuple[Rule, ...] = RULES, **options: Any) -> JobHandle:
    plan = client.prepare(toy.reading(), Space(AXES, PROMPTS, rules), toy.NAME)
    return client.submit(cut(plan, (1, 3)), **options)


def drain(client: Client) -> list[int]:
    """The tasks that were given to the engine."""
    engine = ToyEngine(after=by_bindings)
    with working(client, engine) as here:
        here.run()
    return sorted(task.id for call in engine.calls for task in call)


def test_only_the_points_that_are_left_reach_the_engine(client: Client) -> None:
    job = submit(client)
    assert drain(client) == RUN
    record = job.refresh().record
    assert (record.state, record.tasks, record.tasks_done) == (JobState.COMPLETED, 12, 12)
    results = job.results()
    status = results.status().reshape(-1)
    assert np.flatnonzero(status == TaskStatus.EXCLUDED).tolist() == SKIPPED
    assert np.flatnonzero(status == TaskStatus.SAVED).tolist() == RUN
    residual = np.asarray(results["residual"]).reshape(12, -1)
    assert np.isnan(residual[SKIPPED]).all()
    assert not np.isnan(residual[RUN]).any()
    assert results.verify() == []
    assert client.queue.workers()[0].tokens == 3 * len(RUN)


def test_tables_and_streams_tell_them_apart(client: Client) -> None:
    job = submit(client)
    drain(client)
    frame = job.results().dataframe()
    assert (frame["task_status"] == "excluded").tolist() == [task in SKIPPED for task in range(12)]
    assert frame["logit"].isna().tolist() == [task in SKIPPED for task in range(12)]
    assert [task.id for task in job.as_completed()] == RUN


def test_a_wider_job_runs_only_what_was_excluded_and_a_narrower_one_nothing(client: Client) -> None:
    first = submit(client)
    drain(client)
    everything = client.prepare(toy.reading(), Space(AXES, PROMPTS), toy.NAME)
    found = client.reusable(everything)
    assert (found.tasks, found.jobs, found.left.tolist()) == (len(RUN), (first.id,), SKIPPED)
    wide = client.submit(everything)
    assert drain(client) == SKIPPED
    narrow = submit(client, (*RULES, Rule(False, {"position": [1]})))
    assert drain(client) == []
    status = narrow.results().status().reshape(-1)
    assert np.flatnonzero(status == TaskStatus.REUSED).tolist() == [0, 2, 9, 11]
    whole = {name: np.asarray(array) for name, array in wide.results().items()}
    oracle = client.submit(everything, reuse=False)
    drain(client)
    assert all(np.array_equal(whole[name], np.asarray(array)) for name, array in oracle.results().items())


def test_a_shard_that_fails_names_no_point_that_was_not_to_run(client: Client) -> None:
    job = submit(client, max_retries=0)

    def broken(task: Task) -> None:
        raise RuntimeError("the engine is broken")

    with working(client, ToyEngine(broken)) as here:
        here.run()
    assert job.refresh().state is JobState.FAILED
    assert [failure.task for failure in job.failures()] == RUN


@pytest.mark.parametrize("rules", [(Rule(False, {}),), (Rule(True, {"layer": [0]}), Rule(False, {}))])
def test_a_space_of_which_nothing_is_left_is_refused(client: Client, rules: tuple[Rule, ...]) -> None:
    with pytest.raises(SweepError, match="no point of the space is left to run"):
        client.prepare(toy.reading(), Space(AXES, PROMPTS, rules), toy.NAME)
