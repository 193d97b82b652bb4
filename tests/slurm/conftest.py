"""Sites on the Slurm that the tests share, each with a database of its own."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sqlalchemy import create_engine, text
from transformers import LlamaForCausalLM

from ndif_batch.client import Client
from ndif_batch.config import load_settings
from ndif_batch.queue import schema
from tests import tiny, toy
from tests.devcluster import ROOT, DevCluster
from tests.queue import postgres
from tests.slurm.site import PROMPT, Site
from tests.waiting import until


@pytest.fixture(scope="session")
def model_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def residual(model_source: Path) -> NDArray[np.float32]:
    """What each layer gives for the prompt, by transformers alone: [layer, position, hidden]."""
    model = LlamaForCausalLM.from_pretrained(model_source, dtype=torch.float32)
    tokens = torch.tensor([[toy.WORDS.index(word) for word in PROMPT.split()]])
    found: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, args, output: found.append(output))
    with torch.no_grad():
        model(tokens)
    return np.stack([(one if isinstance(one, torch.Tensor) else one[0])[0].numpy() for one in found])


@pytest.fixture(scope="session")
def template(model_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database that knows the tiny model, to copy."""
    with postgres.server("fsync=off") as url:
        schema.upgrade(url)
        with pytest.MonkeyPatch.context() as patch:  # what comes after has its own settings
            patch.setenv("NDIF_BATCH_DATABASE_URL", url)
            patch.setenv("NDIF_BATCH_DATA_DIR", str(tmp_path_factory.mktemp("data")))
            patch.setenv("NDIF_BATCH_MODEL_CACHE", str(tmp_path_factory.mktemp("models")))
            with Client(load_settings()) as client:
                client.add_model(str(model_source), tiny.NAME)
        yield url


@pytest.fixture
def database(template: str, request: pytest.FixtureRequest) -> str:
    """An empty queue with the model."""
    name = f"site_{abs(hash(request.node.nodeid))}"
    engine = create_engine(template.replace("/postgres?", "/template1?"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE postgres'))
    engine.dispose()
    return template.replace("/postgres?", f"/{name}?")


@pytest.fixture
def site(
    slurm: DevCluster, database: str, residual: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Nothing of it runs afterwards."""
    variables = {
        "DATA_DIR": tmp_path,
        "DATABASE_URL": database,
        "CONFIG": tmp_path / "none.toml",
        "USER": "ada",
        "LEASE_SECONDS": 8,
        "HEARTBEAT_SECONDS": 0.2,
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"NDIF_BATCH_{name}", str(value))
    for name, value in {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": 1, "SLURM_CONF": slurm.conf}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    with Client(load_settings()) as client:
        made = Site(client, slurm, tmp_path, monkeypatch, residual)
        try:
            yield made
        finally:
            made.stop_scheduler()
            repair(slurm)


def repair(slurm: DevCluster) -> None:
    """Give the cluster on as it was: everything up, no job."""
    slurm("start-ctld")
    for node in ("n0", "n1"):
        slurm("start-node", node)
    slurm.slurm("scontrol", "update", "partitionname=low", "state=UP")
    for which in ("--state=PENDING", "--state=RUNNING"):
        slurm.slurm("scancel", "--quiet", which, f"--user={getpass.getuser()}")
    until(lambda: not slurm.slurm("squeue", "--noheader"), "the end of all jobs")
    until(lambda: slurm.tried("status").returncode == 0, "every node")
