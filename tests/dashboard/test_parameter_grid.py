"""The picture of a parameter space: every task at its place, as its shard and its archive have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ndif_batch.client import Client
from ndif_batch.queue.records import JobRecord, ShardRecord
from ndif_batch.server.dashboard.parameter_grid import MOST, Cell, View, drawn, scalars
from ndif_batch.sweep.space import Axis, Space
from tests import toy
from tests.dashboard import scenes
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


def looked_at(client: Client, job_id: int) -> tuple[JobRecord, list[ShardRecord]]:
    return client.queue.job(job_id), client.queue.shards(job_id)


def test_values_stand_where_their_tasks_do_and_states_where_there_is_no_value(tmp_path: Path) -> None:
    with scenes.opened(tmp_path) as client:
        toy.add(client, scenes.LLAMA, toy.site_map(scenes.LAYERS, 64))
        job = scenes.submit(client, "half", "ada")
        scenes.painting(client, shards=3, engine=scenes.Painter(lambda task: "no" if task.id == 17 else None))
        record, shards = looked_at(client, job.id)
        found = drawn(record, shards, job.results(), "logit_diff", {})
        expected = np.asarray(job.results()["logit_diff"][:3])
    assert (found["rows"]["name"], found["columns"]["name"]) == ("layer", "position")
    assert found["rows"]["labels"][:3] == ["0", "1", "2"]
    assert np.shape(found["cells"]) == np.shape(found["values"]) == (24, 16)
    assert found["cells"][0] == [Cell.DONE] * 16
    assert found["cells"][1][1] == Cell.FAILED
    assert found["values"][1][1] is None
    assert found["cells"][3:] == [[Cell.WAITING] * 16] * 21
    assert np.allclose(np.array(found["values"][0]), expected[0], rtol=1e-4)
    assert found["low"] == -found["high"] < 0 < np.nanmax(expected) <= found["high"] * (1 + 1e-6)


def test_leased_cancelled_and_failed_shards_are_told_apart_before_there_is_an_archive(tmp_path: Path) -> None:
    with toy.client(tmp_path) as client:
        job = submit(client, tile=(1, 3))
        worker = client.queue.register_worker(toy.NAME, "here", 1)
        client.queue.lease(worker, toy.NAME, 2 * 9, 60)
        leased = drawn(*looked_at(client, job.id), None, None, {})
        client.queue.cancel(job.id, "ada")
        cancelled = drawn(*looked_at(client, job.id), None, "logit", {})
    assert {cell for row in leased["cells"] for cell in row} == {Cell.WAITING, Cell.LEASED}
    assert leased["cells"][0] == [Cell.LEASED] * 3
    assert cancelled["cells"] == [[Cell.CANCELLED] * 3] * 4
    assert cancelled["values"] is None


def test_a_third_axis_is_looked_at_one_place_at_a_time(tmp_path: Path) -> None:
    with toy.client(tmp_path) as client:
        job = submit(client, repeats=2, tile=(1, 3, 2))
        with working(client, ToyEngine()) as worker:
            worker.run()
        record, shards = looked_at(client, job.id)
        first, second = (drawn(record, shards, job.results(), "logit", {"seed": seed}) for seed in (0, 1))
        results = np.asarray(job.results()["logit"][...])
    assert scalars(record) == ["logit"]
    for seed, found in enumerate((first, second)):
        assert np.allclose(np.array(found["values"]), results[:, :, seed], rtol=1e-5)


def test_of_a_long_axis_every_so_manieth_place_is_drawn(tmp_path: Path) -> None:
    space = Space((Axis("x", {"x": range(10 * MOST)}),))
    view = View.of(space, {})
    assert (view.rows, view.columns, view.fixed) == (None, "x", {})
    with toy.client(tmp_path) as client:
        record = client.queue.job(submit(client).id)
    found = drawn(replace(record, space=space.to_json(), tasks=space.size), [], None, None, {})
    assert np.shape(found["cells"]) == (1, MOST)
    assert found["columns"]["labels"][:3] == ["0", "10", "20"]


def test_points_that_do_not_run_are_excluded() -> None:
    space = Space((Axis("a", {"a": range(2)}), Axis("b", {"b": range(3)}), Axis("c", {"c": range(3)})))
    assert View.of(space, {"a": 9}) == View("b", "c", {"a": 1})
