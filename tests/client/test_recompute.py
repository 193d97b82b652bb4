"""Saved tasks are run again alone, from what their archive says, and compared with what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from ndif_batch import ConflictError, IntegrityError, UsageError, worker
from ndif_batch.archive import TaskStatus
from ndif_batch.cli.main import main
from ndif_batch.client import Client, JobHandle
from ndif_batch.graph.nodes import Graph, Node, NodeRef
from ndif_batch.queue import schema
from ndif_batch.sweep.space import Axis, Space
from tests import tiny, toy

TASKS = 8


def noisy() -> Graph:
    """The residual stream with noise, the whole of it as long as the prompt, and the place of the largest logit."""
    nodes = (
        *toy.reading().nodes,
        Node("randn", (16,)),
        Node("add", (NodeRef(1), NodeRef(6))),
        Node("save", (NodeRef(7),), name="noisy"),
        Node("save", (NodeRef(0),), name="stream"),
        Node("argmax", (NodeRef(3),)),
        Node("save", (NodeRef(10),), name="top"),
    )
    return Graph(toy.reading().params, toy.reading().runs, nodes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recompute")


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = toy.settings(root)
    schema.upgrade(settings.database)
    with Client(settings) as made:
        made.add_model(str(tiny.write(tmp_path_factory.mktemp("source"))), tiny.NAME)
        yield made


@pytest.fixture(scope="module")
def jobs(client: Client) -> tuple[JobHandle, JobHandle]:
    """One that was run, and one that took half of it."""
    axes = [Axis("layer", {"layer": [1, 0]}), Axis("prompt", {"prompt": ["the cat sat on", "the dog"]})]
    constants = {"answer": "Paris"}
    first = client.prepare(noisy(), Space((Axis("position", {"position": [0]}), *axes), constants), tiny.NAME)
    longer = client.prepare(noisy(), Space((Axis("position", {"position": [0, 1]}), *axes), constants), tiny.NAME)
    ran = client.submit(first, seed=3, verify_fraction=1.0)
    worker.run(client.settings, tiny.NAME, until_idle=True, device="cpu")
    took = client.submit(longer, seed=3)
    worker.run(client.settings, tiny.NAME, until_idle=True, device="cpu")
    return ran.refresh(), took.refresh()


def test_a_worker_checks_with_the_model_that_it_holds(jobs: tuple[JobHandle, JobHandle]) -> None:
    found = jobs[0].verified()
    assert (found.tasks >= 1, found.deviating) == (True, ())
    assert {one.save for one in found.deviations} == {"logit", "noisy", "residual", "stream", "top"}
    assert all(one.relative < 1e-5 for one in found.deviations)
    assert jobs[0].results().attributes["verified"] == found.to_json()


def test_what_was_saved_and_what_was_reused_is_what_comes_out_again(
    client: Client, jobs: tuple[JobHandle, JobHandle]
) -> None:
    status = jobs[1].results().status().ravel().tolist()
    assert status == [TaskStatus.REUSED] * 4 + [TaskStatus.SAVED] * 4
    found = client.recompute(jobs[1].id, 100)
    assert (found.tasks, found.deviating) == (TASKS, ())
    assert all(one.relative < 1e-5 for one in found.deviations)
    assert client.recompute(jobs[1].id, 3, seed=1) == client.recompute(jobs[1].id, 3, seed=1)
    with pytest.raises(UsageError, match="0 tasks"):
        client.recompute(jobs[1].id, 0)


def test_a_value_that_somebody_changed_is_found(
    client: Client,
    jobs: tuple[JobHandle, JobHandle],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"DATA_DIR": client.settings.data_dir, "MODEL_CACHE": client.settings.model_cache}.items():
        monkeypatch.setenv(f"NDIF_BATCH_{name}", str(value))
    monkeypatch.setenv("NDIF_BATCH_CONFIG", str(client.settings.data_dir / "none.toml"))
    job = jobs[0]
    logit = zarr.open_array(job.record.store, path="logit", mode="r+")
    right = float(np.asarray(logit[0, 1, 0]))
    command = ["results", "verify", str(job.id), "--recompute", "4", "-o", "json"]
    assert main(command) == 0
    assert "4 tasks run again alone" in capsys.readouterr().err
    logit[0, 1, 0] = right + 0.5
    try:
        assert main(command) == 1
        told = capsys.readouterr()
        row = next(row for row in json.loads(told.out) if row["array"] == "logit")
        assert (row["task"], row["absolute"]) == (2, pytest.approx(0.5, abs=1e-4))
        assert "deviate by more than rounding explains: 2" in told.err
        assert "files are damaged" in told.err
    finally:
        logit[0, 1, 0] = right


def test_values_that_cannot_be_read_deviate(client: Client, jobs: tuple[JobHandle, JobHandle]) -> None:
    shard = next((jobs[0].record.store / "stream").glob("c.*"))
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert client.recompute(jobs[0].id, 4).deviating == (0, 1, 2, 3)
    finally:
        shard.write_bytes(whole)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("graph", {"version": 1}, IntegrityError),
        ("graph_digest", "0" * 64, IntegrityError),
        ("space", {"axes": [], "constants": {}}, IntegrityError),
        ("model", {"name": tiny.NAME, "digest": "0" * 64}, ConflictError),
    ],
)
def test_an_archive_of_another_experiment_or_model_is_refused(
    client: Client, jobs: tuple[JobHandle, JobHandle], key: str, value: object, error: type[Exception]
) -> None:
    file = jobs[0].record.store / "zarr.json"
    whole = file.read_text()
    group = json.loads(whole)
    group["attributes"][key] = value
    try:
        file.write_text(json.dumps(group))
        with pytest.raises(error):
            client.recompute(jobs[0].id, 1)
    finally:
        file.write_text(whole)
