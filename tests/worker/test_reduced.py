"""A job keeps statistics in place of every task's value: whoever ran it, and however often, they are numpy's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import SweepError, TaskError
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Rule, Space
from ndif_batch.sweep.task import SEED_AXIS, Task
from tests import toy
from tests.worker.test_killed import PATIENCE_SECONDS, Start, start, wait_for
from tests.worker.test_reuse import by_bindings
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import cut, working

__all__ = ["start"]

AXES = (
    Axis("layer", {"layer": range(4)}),
    Axis("position", {"position": range(3)}),
    Axis(SEED_AXIS, {SEED_AXIS: range(15)}),
)
CONSTANTS = {"prompt": "the cat sat", "answer": "Paris"}
REDUCE: dict[str, Any] = {
    "logit": {"axis": ["position", "seed"], "op": "mean"},
    "spread": {"save": "logit", "axis": "seed", "op": "std", "ddof": 1},
    "residual": {"axis": ["position", "seed"], "op": "cov"},
    "best": {"save": "logit", "axis": ["position", "seed"], "op": "topk", "k": 4},
}
SHARDS = 4 * 3 * 2


def submit(
    client: Client, reduce: dict[str, Any] | None = None, *, rules: tuple[Rule, ...] = (), **options: Any
) -> JobHandle:
    plan = client.prepare(toy.reading(), Space(AXES, CONSTANTS, rules), toy.NAME, reduce=reduce)
    return client.submit(cut(plan, (1, 1, 8)), **{"reuse": False, **options})


def drain(client: Client, engine: ToyEngine | None = None, **options: Any) -> None:
    with working(client, engine or ToyEngine(), **options) as here:
        here.run()


def assert_statistics(job: JobHandle, plain: JobHandle) -> None:
    """Those of a job are those of all values of one that keeps them."""
    results, whole = job.results(), plain.results().xarray().load().astype(np.float64)
    logit, residual = whole["logit"].values.reshape(4, 45), whole["residual"].values.reshape(4, 45, -1)
    centred = residual - np.nanmean(residual, 1, keepdims=True)
    there = (~np.isnan(logit)).sum(1)
    cov = np.einsum("lni,lnj->lij", np.nan_to_num(centred), np.nan_to_num(centred)) / there[:, None, None]
    data = results.xarray().load()
    assert {name: data[name].dims for name in data.data_vars} == {
        "best": ("layer", "best_rank"),
        "logit": ("layer",),
        "residual": ("layer", "residual_0", "residual_0_2"),
        "spread": ("layer", "position"),
    }
    np.testing.assert_allclose(data["logit"], np.nanmean(logit, 1), rtol=1e-12)
    known = data["spread_count"].values > 1
    np.testing.assert_allclose(
        data["spread"].values[known], np.nanstd(whole["logit"].values[known], 1, ddof=1), rtol=1e-12
    )
    assert np.isnan(data["spread"].values[~known]).all()
    np.testing.assert_allclose(data["residual"], cov, rtol=1e-10, atol=1e-9)
    assert data["logit_count"].values.tolist() == there.tolist()
    for layer in range(4):
        order = np.argsort(np.where(np.isnan(logit[layer]), np.inf, -logit[layer]), kind="stable")[:4]
        assert data["best"].values[layer].tolist() == logit[layer, order].tolist()
        places = zip(data["best_position"].values[layer], data["best_seed"].values[layer], strict=True)
        assert [position * 15 + seed for position, seed in places] == order.tolist()
    assert results.verify() == []
    assert np.array_equal(results.status(), plain.results().status())


def test_statistics_are_those_of_the_values_of_an_ordinary_job_without_failed_and_excluded_tasks(
    client: Client,
) -> None:
    def before(task: Task) -> None:
        if task.id % 7 == 3:
            raise TaskError("no", node=0)

    rules = (Rule(False, {"seed": [2, 9]}), Rule(False, {"layer": [1], "position": [0]}))
    jobs = [submit(client, reduce, rules=rules) for reduce in (REDUCE, None)]
    drain(client, ToyEngine(before))
    job, plain = (one.refresh() for one in jobs)
    assert job.state is plain.state is JobState.FAILED
    assert_statistics(job, plain)
    job.retry()
    plain.retry()
    drain(client)
    assert job.refresh().state is JobState.COMPLETED
    assert_statistics(job, plain)


@pytest.mark.parametrize("max_tokens", [9, 100])
def test_they_do_not_depend_on_what_runs_together(client: Client, max_tokens: int) -> None:
    job, plain = submit(client, REDUCE), submit(client)
    drain(client, max_tokens=max_tokens)
    assert_statistics(job, plain)


def test_kill_nine_in_the_middle_and_two_workers_then_count_every_task_once(client: Client, start: Start) -> None:
    job = submit(client, REDUCE)
    victim = start()
    wait_for(victim, random.Random(1).randrange(1, SHARDS // 2))
    victim.kill()
    victim.communicate()
    so_far = job.results()
    done = int((so_far.status() == TaskStatus.SAVED).sum())
    count = so_far.xarray()["logit_count"].values
    assert 0 < done <= count.sum() < 180
    workers = [start(), start()]
    for worker in workers:
        worker.communicate(timeout=PATIENCE_SECONDS)
    assert job.refresh().state is JobState.COMPLETED
    plain = submit(client)
    drain(client)
    assert_statistics(job, plain)


@pytest.mark.parametrize("seed", [1])
def test_a_worker_that_dies_at_any_step_leaves_nothing_wrong(client: Client, start: Start, seed: int) -> None:
    job = submit(client, REDUCE)
    for _ in range(2):
        victim = start(random.Random(seed).randrange(1, 40 * SHARDS))
        victim.communicate(timeout=PATIENCE_SECONDS)
    plain = submit(client)
    drain(client)
    assert job.refresh().state is JobState.COMPLETED
    assert_statistics(job, plain)


def test_tasks_are_checked_though_their_values_are_not_kept(client: Client) -> None:
    job = submit(client, REDUCE, verify_fraction=1.0)
    with working(client, ToyEngine(), alone=ToyEngine(after=_other)) as here:
        here.run()
    found = job.verified()
    assert found.tasks > 0
    assert {one.save for one in found.deviations} == {"logit", "residual"}
    assert found.deviating


def _other(task: Task, saves: dict[str, Any]) -> None:
    saves["logit"] = saves["logit"] + np.float32(1e3)


def test_an_ordinary_job_gives_its_values_to_a_reduced_one_and_not_the_other_way_round(client: Client) -> None:
    plain = submit(client)
    drain(client, ToyEngine(after=by_bindings))
    engine = ToyEngine(after=by_bindings)
    plan = client.prepare(toy.reading(), Space(AXES, CONSTANTS), toy.NAME, reduce=REDUCE)
    assert client.reusable(plan).jobs == (plain.id,)
    job = client.submit(plan)
    drain(client, engine)
    assert engine.calls == []
    results = job.results()
    np.testing.assert_allclose(
        np.asarray(results["logit"]), np.asarray(plain.results()["logit"]).reshape(4, -1).mean(1), rtol=1e-6
    )
    plain.remove_results()
    again = client.prepare(toy.reading(), Space(AXES, CONSTANTS), toy.NAME)
    assert client.reusable(again).tasks == 0
    assert client.earlier(again) is None
    assert client.earlier(plan) is not None
    client.submit(again)
    drain(client, engine)
    assert sum(map(len, engine.calls)) == 180


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        ({"logit": {"axis": "seeds", "op": "mean"}}, "reduce.logit: there is no axis 'seeds' to reduce over"),
        ({"logits": {"axis": "seed", "op": "mean"}}, "reduce.logits: the experiment saves nothing called 'logits'"),
        ({"logit": {"axis": "seed", "op": "median"}}, "reduce.logit.op: must be 'mean', 'sum'"),
        ({"logit": {"axis": "seed"}}, "reduce.logit.op: Field required"),
        ({"logit": {"axis": "seed", "op": "cov"}}, "reduce.logit: cov needs vectors"),
        ({"logit": "mean"}, "reduce.logit: "),
    ],
)
def test_a_reduction_that_cannot_be_is_refused_before_anything_is_queued(
    client: Client, reduce: dict[str, Any], message: str
) -> None:
    with pytest.raises(SweepError, match=message.replace(".", r"\.")):
        submit(client, reduce)
