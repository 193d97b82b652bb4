"""With the real engine: an extended sweep runs the rest only, and has the arrays of one that ran whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ndif_batch import worker
from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client, JobHandle
from ndif_batch.graph.nodes import Graph, Node, NodeRef
from ndif_batch.queue import schema
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from tests import tiny, toy


def noisy() -> Graph:
    """The residual stream at ``layer`` and ``position``, and the same with noise."""
    nodes = toy.reading().nodes
    noise = (Node("randn", (16,)), Node("add", (NodeRef(1), NodeRef(len(nodes)))))
    return Graph(
        toy.reading().params,
        toy.reading().runs,
        (*nodes, *noise, Node("save", (NodeRef(len(nodes) + 1),), name="noisy")),
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("reuse")
    settings = toy.settings(root).model_copy(update={"model_cache": Path(root) / "models"})
    schema.upgrade(settings.database)
    with Client(settings) as made:
        made.add_model(str(tiny.write(tmp_path_factory.mktemp("source"))), tiny.NAME)
        yield made


def submit(client: Client, graph: Graph, positions: int, **options: object) -> JobHandle:
    axes = (Axis("position", {"position": range(positions)}), Axis("layer", {"layer": [1, 0]}))
    plan = client.prepare(graph, Space(axes, {"prompt": "the cat sat on", "answer": "Paris"}), tiny.NAME)
    return client.submit(plan, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", [toy.reading(), noisy()], ids=["reading", "noisy"])
def test_an_extended_sweep_runs_what_is_missing_and_equals_a_whole_run(client: Client, graph: Graph) -> None:
    submit(client, graph, 2, seed=3)
    assert worker.run(client.settings, tiny.NAME, until_idle=True).tasks_done == 4
    longer = submit(client, graph, 4, seed=3)
    done = worker.run(client.settings, tiny.NAME, until_idle=True)
    assert (done.tasks_done, done.tasks_reused) == (8, 4)
    again = submit(client, graph, 4, seed=3)
    done = worker.run(client.settings, tiny.NAME, until_idle=True)
    assert (done.tasks_done, done.tasks_reused) == (8, 8)
    assert "sharing" not in again.results().attributes
    oracle = submit(client, graph, 4, seed=3, reuse=False)
    assert worker.run(client.settings, tiny.NAME, until_idle=True).tasks_reused == 0

    assert longer.results().attributes["sharing"]["tasks"] == 4
    assert longer.results().status().ravel().tolist() == [TaskStatus.REUSED] * 4 + [TaskStatus.SAVED] * 4
    for job in (longer, again):
        assert job.refresh().state is JobState.COMPLETED
        for name, array in oracle.results().items():
            np.testing.assert_allclose(np.asarray(job.results()[name]), np.asarray(array), rtol=1e-5, atol=1e-6)
    for name in again.results():
        assert np.array_equal(np.asarray(again.results()[name]), np.asarray(longer.results()[name]))
