"""Nothing is run twice, and what is re-used is what a run would have saved: the oracle is a run without re-use."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client, JobHandle
from ndif_batch.client.reuse import Reusable
from ndif_batch.errors import TaskError
from ndif_batch.graph.nodes import Graph, Node
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.records import JobState, ModelRecord
from ndif_batch.queue.tables import job as job_table
from ndif_batch.sweep.matching import draws
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from ndif_batch.worker.ending import Until
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import cut, working

PROMPTS = {"prompt": "the cat sat", "answer": "Paris"}
GRID: Mapping[str, Sequence[Any]] = {"layer": range(3), "position": range(3)}
DRAWING = replace(toy.reading(), nodes=(*toy.reading().nodes, Node("randn", (2,))))


def by_bindings(task: Task, saves: dict[str, Any]) -> None:
    """What a graph saves that draws no random numbers does not depend on the seed."""
    if "logit" in saves and not draws(task.graph):
        saves["logit"] = np.float32(len(str(task.bindings["prompt"]))) + np.asarray(task.bindings["layer"], np.float32)


def engine(before: Callable[[Task], None] = lambda task: None) -> ToyEngine:
    return ToyEngine(before, by_bindings)


def submit(
    client: Client,
    grid: Mapping[str, Sequence[Any]] = GRID,
    constants: Mapping[str, Any] = PROMPTS,
    *,
    graph: Graph | None = None,
    tile: tuple[int, ...] | None = None,
    **options: Any,
) -> JobHandle:
    space = Space(tuple(Axis(name, {name: values}) for name, values in grid.items()), constants)
    plan = client.prepare(graph or toy.reading(), space, toy.NAME)
    return client.submit(plan if tile is None else cut(plan, tile), **options)


def run(client: Client, **options: Any) -> int:
    """Carry out all jobs; how many tasks the engine ran."""
    used = engine(**options)
    with working(client, used) as here:
        here.run()
    return used.counters.tasks


def assert_as_without_reuse(client: Client, job: JobHandle, *, reused: int, **submission: Any) -> None:
    """Completed, with the values of a run that re-uses nothing, so many of them re-used."""
    oracle = submit(client, **submission, reuse=False)
    assert run(client) == oracle.record.tasks
    assert job.refresh().state is JobState.COMPLETED
    ours, theirs = job.results(), oracle.results()
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        assert np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name]), equal_nan=True), name
    assert (ours.status() == TaskStatus.REUSED).sum() == reused
    assert (theirs.status() == TaskStatus.SAVED).all()
    assert ours.verify() == []


@pytest.fixture
def first(client: Client) -> JobHandle:
    """Nine tasks, done."""
    job = submit(client, tile=(1, 3))
    assert run(client) == 9
    return job


CHANGED: Mapping[str, tuple[dict[str, Any], int, int]] = {
    "the same": ({}, 9, 9),
    "an added value": ({"grid": {"layer": range(4), "position": range(3)}}, 12, 9),
    "a changed axis": ({"grid": {"layer": [2, 3], "position": [1, 0]}}, 4, 2),
    "axes in another order": ({"grid": {"position": [2, 1, 0], "layer": [1, 2, 3]}}, 9, 6),
    "an axis made constant": ({"grid": {"layer": range(4)}, "constants": PROMPTS | {"position": 2}}, 4, 3),
    "a constant made an axis": (
        {
            "grid": {"layer": range(3), "prompt": ["the dog", "the cat sat"]},
            "constants": {"answer": "Paris", "position": 0},
        },
        6,
        3,
    ),
    "another prompt": ({"constants": PROMPTS | {"prompt": "the dog ran"}}, 9, 0),
    "a seed that nothing draws from": ({"seed": 5}, 9, 9),
    "every point twice by seed": ({"grid": {**GRID, "seed": range(2)}}, 18, 18),
}


@pytest.mark.parametrize("what", CHANGED)
def test_only_what_is_missing_is_run(client: Client, first: JobHandle, what: str) -> None:
    submission, tasks, reused = CHANGED[what]
    job = submit(client, **submission)
    assert run(client) == tasks - reused
    assert job.refresh().record.tasks_done == tasks
    assert_as_without_reuse(client, job, reused=reused, **submission)


def test_a_job_of_which_everything_is_saved_needs_no_pass_and_costs_nothing(client: Client, first: JobHandle) -> None:
    before = client.queue.usage_of("ada")
    submit(client, tile=(1, 3))
    used = engine()
    with working(client, used) as here:
        progress = here.run()
    assert (used.calls, used.counters.passes) == ([], 0)
    assert (progress.tasks_done, progress.tasks_reused, progress.shards_done) == (9, 9, 3)
    assert client.queue.usage_of("ada") == before


def test_a_shard_is_charged_for_what_was_run_of_it(client: Client, first: JobHandle) -> None:
    submit(client, {"layer": [2, 3], "position": range(3)}, tile=(2, 3))
    before = sum((row.cost.tokens for row in client.queue.usage_of("ada")), 0)
    assert run(client) == 3
    assert sum((row.cost.tokens for row in client.queue.usage_of("ada")), 0) - before == 3 * 3


def test_no_reuse_runs_everything(client: Client, first: JobHandle) -> None:
    again = submit(client, reuse=False)
    assert (again.record.options, run(client)) == ({"nan": "allow", "layout": "auto", "verify_fraction": 0.01}, 9)
    assert (again.results().status() == TaskStatus.SAVED).all()


def test_what_was_reused_is_reused_again_when_the_first_is_gone(client: Client, first: JobHandle) -> None:
    second = submit(client)
    run(client)
    shutil.rmtree(first.record.store)
    third = submit(client)
    assert (third.record.options["reuse"], run(client)) == ([second.id, first.id], 0)
    assert_as_without_reuse(client, third, reused=9)


def test_several_earlier_jobs_each_give_their_part(client: Client, first: JobHandle) -> None:
    other = submit(client, {"layer": [3], "position": range(3)})
    assert run(client) == 3
    whole = {"layer": range(4), "position": range(3)}
    job = submit(client, whole)
    assert (job.record.options["reuse"], run(client)) == ([other.id, first.id], 0)
    assert_as_without_reuse(client, job, reused=12, grid=whole)


def test_a_job_that_waits_takes_what_is_saved_by_the_time_it_runs(client: Client) -> None:
    submit(client)
    later = submit(client)
    used = engine()
    with working(client, used, max_tokens=1) as here:
        here.run()
    assert used.counters.tasks == 9
    assert_as_without_reuse(client, later, reused=9)


def test_another_user_gets_nothing(client: Client, first: JobHandle) -> None:
    with Client(client.settings.model_copy(update={"user": "bob"})) as bob:
        job = submit(bob)
        assert bob.reusable(bob.prepare(toy.reading(), Space.from_json(job.record.space), toy.NAME)) == Reusable()
    assert "reuse" not in job.record.options
    assert run(client) == 9


def test_a_row_that_names_another_users_job_gets_nothing_all_the_same(client: Client, first: JobHandle) -> None:
    with Client(client.settings.model_copy(update={"user": "bob"})) as bob:
        job = submit(bob)
    assert job.record.identity == first.record.identity
    with client.queue._database.write() as tx:
        tx.connection.execute(update(job_table).where(job_table.c.id == job.id).values(options={"reuse": [first.id]}))
    assert run(client) == 9


@pytest.mark.parametrize("change", [{"revision": "r2"}, {"digest": "e" * 64}, {"dtype": "float16"}])
def test_another_revision_other_weights_or_another_dtype_get_nothing(
    client: Client, first: JobHandle, change: dict[str, str]
) -> None:
    info = replace(client.model_info(toy.NAME), **change)  # type: ignore[arg-type]
    same = client.prepare(toy.reading(), Space.from_json(first.record.space), toy.NAME)
    assert client.reusable(same) == Reusable(9, (first.id,))
    other = client.prepare(toy.reading(), Space.from_json(first.record.space), info)
    assert client.reusable(other) == Reusable()
    client.queue.add_model(ModelRecord("other", info.source, str(info.directory), info.revision, info.dtype, "f", {}))
    assert "reuse" not in client.submit(replace(other, model=replace(info, name="other"))).record.options


def test_another_tokenizer_or_configuration_gets_nothing(client: Client, first: JobHandle) -> None:
    info = client.model_info(toy.NAME)
    assert submit(client).record.options["reuse"] == [first.id]
    (info.weights / "config.json").write_text('{"rope_theta": 1}')
    assert "reuse" not in submit(client).record.options
    (info.weights / "config.json").unlink()
    file = info.directory / "tokenizer.json"
    file.write_text(file.read_text().replace("Rome", "Oslo"))
    assert "reuse" not in submit(client).record.options


@pytest.mark.parametrize("options", [{"nan": "error"}, {"layout": "solo"}])
def test_a_job_that_asks_for_other_treatment_gets_nothing(
    client: Client, first: JobHandle, options: dict[str, Any]
) -> None:
    assert "reuse" not in submit(client, **options).record.options


def test_renamed_saves_are_another_graph(client: Client, first: JobHandle) -> None:
    nodes = [replace(node, name="hidden") if node.name == "residual" else node for node in toy.reading().nodes]
    assert "reuse" not in submit(client, graph=replace(toy.reading(), nodes=tuple(nodes))).record.options


def test_random_numbers_are_reused_with_the_same_seed_only(client: Client) -> None:
    submit(client, graph=DRAWING, seed=1)
    assert run(client) == 9
    same, other = submit(client, graph=DRAWING, seed=1), submit(client, graph=DRAWING, seed=2)
    assert run(client) == 9
    assert_as_without_reuse(client, same, reused=9, graph=DRAWING, seed=1)
    assert_as_without_reuse(client, other, reused=0, graph=DRAWING, seed=2)


def test_random_numbers_are_reused_where_tasks_keep_their_number_or_their_seed(client: Client) -> None:
    seeded = {"layer": range(2), "seed": range(3)}
    for grid in (GRID, seeded):
        submit(client, grid, PROMPTS | ({} if grid is GRID else {"position": 0}), graph=DRAWING)
    assert run(client) == 9 + 6
    longer: dict[str, Any] = {"grid": {"layer": range(4), "position": range(3)}, "graph": DRAWING}
    turned: dict[str, Any] = {"grid": {"position": range(3), "layer": range(3)}, "graph": DRAWING}
    moved: dict[str, Any] = {
        "grid": {"seed": [2, 5], "layer": [1, 0]}, "constants": PROMPTS | {"position": 0}, "graph": DRAWING
    }  # fmt: skip
    jobs = [submit(client, **one) for one in (longer, turned, moved)]
    run(client)
    for job, one, reused in zip(jobs, (longer, turned, moved), (9, 3, 2), strict=True):
        assert_as_without_reuse(client, job, reused=reused, **one)


def test_ragged_values_are_reused_between_arrays_of_different_lengths(client: Client) -> None:
    short = {"grid": {"prompt": ["the cat", "the"]}, "constants": {"layer": 1}, "graph": toy.whole()}
    long = {"grid": {"prompt": ["the cat sat on", "the", "the cat"]}, "constants": {"layer": 1}, "graph": toy.whole()}
    submit(client, **short)  # type: ignore[arg-type]
    assert run(client) == 2
    longer = submit(client, **long)  # type: ignore[arg-type]
    assert run(client) == 1
    assert_as_without_reuse(client, longer, reused=2, **long)
    shorter = submit(client, **short)  # type: ignore[arg-type]
    assert run(client) == 0
    assert_as_without_reuse(client, shorter, reused=2, **short)


def test_failed_tasks_are_run_again(client: Client) -> None:
    def before(task: Task) -> None:
        if task.id in (2, 7):
            raise TaskError("a passing trouble")

    submit(client)
    run(client, before=before)
    job = submit(client)
    assert run(client) == 2
    assert_as_without_reuse(client, job, reused=7)


def damage(store: Path) -> None:
    file = store / "logit" / "c.1.0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


BROKEN: Mapping[str, tuple[Callable[[Path], Any], int]] = {
    "its archive was deleted": (shutil.rmtree, 9),
    "a byte of a shard flipped": (damage, 3),
    "a file of a shard is missing": (lambda store: (store / "residual" / "c.2.0.0").unlink(), 3),
    "an array is missing": (lambda store: shutil.rmtree(store / "residual"), 9),
    "an array's metadata is nonsense": (lambda store: (store / "residual" / "zarr.json").write_text("{"), 9),
    "the group's metadata is nonsense": (lambda store: (store / "zarr.json").write_text("{"), 0),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_an_earlier_archive_has_lost_is_run_again(client: Client, first: JobHandle, what: str) -> None:
    breaks, missing = BROKEN[what]
    breaks(first.record.store)
    job = submit(client)
    assert run(client) == missing
    assert_as_without_reuse(client, job, reused=9 - missing)


def test_an_earlier_job_whose_row_cannot_be_read_is_passed_over(client: Client, first: JobHandle) -> None:
    job = submit(client)
    with client.queue._database.write() as tx:
        tx.connection.execute(update(job_table).where(job_table.c.id == first.id).values(arrays=[{"name": "x"}]))
    assert run(client) == 9
    assert_as_without_reuse(client, job, reused=0)


def test_a_cancelled_job_gives_what_it_had_saved(client: Client) -> None:
    cancelled = submit(client, tile=(1, 3))
    with working(client, engine(), max_tokens=18) as here:
        here.run(Until(one=True))
    cancelled.cancel()
    job = submit(client)
    assert run(client) == 3
    assert_as_without_reuse(client, job, reused=6)


def test_a_plan_tells_what_would_be_reused(client: Client, first: JobHandle) -> None:
    space = Space((Axis("layer", {"layer": range(4)}), Axis("position", {"position": range(3)})), PROMPTS)
    plan = client.prepare(toy.reading(), space, toy.NAME)
    assert client.reusable(plan) == Reusable(9, (first.id,))
    assert client.reusable(plan, nan="error") == Reusable()
    with client.queue._database.write() as tx:
        failed = {"state": JobState.FAILED, "tasks_failed": 1, "tasks_done": 8, "reason": "1 of 9 tasks failed"}
        tx.connection.execute(update(job_table).where(job_table.c.id == first.id).values(failed))
    damage_status = first.record.store / "task_status" / "c.1.0"
    damage_status.unlink()
    assert client.reusable(plan) == Reusable(6, (first.id,))
    shutil.rmtree(first.record.store)
    assert client.reusable(plan) == Reusable()


def test_a_drained_worker_gives_shards_back_and_reuses_no_more(client: Client, first: JobHandle) -> None:
    submit(client)
    with working(client, engine()) as here:
        here.heart.draining.ask("a test")
        assert here.run().tasks_reused == 0
    assert run(client) == 0


def test_costs_of_shared_calls_add_up_beside_reused_shards(client: Client, first: JobHandle) -> None:
    submit(client)
    submit(client, constants=PROMPTS | {"prompt": "the dog ran"})
    before = sum((row.cost.tokens for row in client.queue.usage_of("ada")), 0)
    assert run(client) == 9
    spent = [row.cost for row in client.queue.usage_of("ada")]
    assert sum(cost.tokens for cost in spent) - before == 27
    assert all(cost != Cost() for cost in spent)
