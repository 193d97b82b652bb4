"""A worker whose model is split over processes of its own gives the arrays of one that has it in one piece."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ndif_batch import worker
from ndif_batch.client import Client, JobHandle
from ndif_batch.config import ModelPilots, Settings
from ndif_batch.queue import schema
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from tests import tiny, toy

SECONDS = 120


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("split")
    settings = toy.settings(root).model_copy(update={"model_cache": Path(root) / "models"})
    schema.upgrade(settings.database)
    with Client(settings) as made:
        made.add_model(str(tiny.write(tmp_path_factory.mktemp("source"), key_value_heads=2)), tiny.NAME)
        yield made


def submit(client: Client) -> JobHandle:
    axes = (Axis("position", {"position": range(4)}), Axis("layer", {"layer": [1, 0]}))
    plan = client.prepare(toy.reading(), Space(axes, {"prompt": "the cat sat on", "answer": "Paris"}), tiny.NAME)
    return client.submit(plan, reuse=False, verify_fraction=1.0)


def split(settings: Settings, gpus: int) -> dict[str, str]:
    """The environment of a worker that is to split the model."""
    pilots = ModelPilots(resources={"gpus_per_node": gpus}, parallel="tensor")
    cluster = settings.cluster.model_copy(update={"models": {tiny.NAME: pilots}})
    own = settings.model_copy(update={"cluster": cluster})
    return os.environ | own.environment() | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def work(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ndif_batch.cli.main", "worker", "run", "--model", tiny.NAME, "--until-idle"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_the_arrays_of_a_split_model_are_those_of_one_in_one_piece(client: Client) -> None:
    whole = submit(client)
    assert worker.run(client.settings, tiny.NAME, until_idle=True).tasks_failed == 0
    parts = submit(client)
    done = work(split(client.settings, 2))
    assert done.returncode == 0, done.stderr
    assert "8 tasks done, 0 of them failed" in done.stderr
    assert parts.refresh().state is JobState.COMPLETED
    for name, expected in whole.results().items():
        np.testing.assert_allclose(np.asarray(parts.results()[name]), np.asarray(expected), rtol=1e-4, atol=1e-6)


def test_a_model_that_is_to_be_split_needs_several_devices(client: Client) -> None:
    done = work(split(client.settings, 1))
    assert done.returncode != 0
    assert "there is one device" in done.stderr
