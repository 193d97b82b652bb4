"""From the command line to results through real pilots: none, as many as are wanted, one killed, none again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndif_batch import Client
from ndif_batch.client import JobHandle
from ndif_batch.config import load_settings
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import EventKind, JobState, ShardState
from tests import tiny
from tests.devcluster import ROOT
from tests.waiting import until

pytestmark = pytest.mark.slow

JOB = """from ndif_batch import param


def build(lm):
    with lm.trace(param("prompt")) as t:
        hidden = lm.model.layers[param("layer")].output[0, param("position")]
        (hidden * param("scale")).save("residual")
    return t
"""
LAYERS, POSITIONS, SCALES = 2, 4, 1000
SECONDS = 40.0


@dataclass(frozen=True)
class Site:
    """A place where ndif-batch is used: its directory, its queue, its settings in the environment."""

    client: Client
    patch: pytest.MonkeyPatch
    launcher: str

    def says(self, *words: str) -> str:
        """What a command prints, in a process of its own; fails with what it says."""
        command = [sys.executable, "-m", "ndif_batch.cli.main", *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        text = done.stdout
        assert done.returncode == 0, text
        return text

    def settle(self, **cluster: Any) -> None:
        """Change how the scheduler works from now on."""
        quick = {"worth": 0.001, "least_seconds": 0.001, "idle_seconds": 0, "residence_seconds": 0}
        words = {**quick, "launcher": self.launcher, **cluster}
        self.patch.setenv("NDIF_BATCH_CLUSTER", json.dumps(words))

    def submit(self, *more: str) -> JobHandle:
        axes = {"layer": LAYERS, "position": POSITIONS, "scale": SCALES}
        grid = [word for name, length in axes.items() for word in ("--grid", f"{name}=0:{length}")]
        said = self.says(
            "submit", "job.py", "--model", tiny.NAME, "-S", "prompt=the cat sat on", *grid, "--parsable", *more
        )
        return self.client.job(int(said))

    def tick(self) -> str:
        return self.says("scheduler", "run", "--once")

    def active(self) -> list[PilotRecord]:
        return self.client.queue.pilots()

    def tick_until(self, true: Any, what: str) -> None:
        def ticked() -> bool:
            said = self.tick()
            return bool(true()) and bool(said)

        until(ticked, what, SECONDS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("source"))


@pytest.fixture
def site(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A queue with the tiny model; what pilots are left are killed."""
    variables = {
        "DATA_DIR": tmp_path,
        "MODEL_CACHE": tmp_path / "models",
        "CONFIG": tmp_path / "none.toml",
        "USER": "ada",
        "LEASE_SECONDS": 3,
        "HEARTBEAT_SECONDS": 0.2,
        "MAX_BATCH_TOKENS": 8,
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"NDIF_BATCH_{name}", str(value))
    for name in ("DATABASE_URL", "ARCHIVE_DIR"):
        monkeypatch.delenv(f"NDIF_BATCH_{name}", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    settings = load_settings()
    schema.upgrade(settings.database)
    with Client(settings) as client:
        client.add_model(str(source), tiny.NAME)
        made = Site(client, monkeypatch, request.param)
        made.settle()
        yield made
        made.says("cluster", "kill", "--all")


def assert_right(job: JobHandle) -> None:
    """Every task is there once, and a multiple of the unscaled one."""
    assert job.refresh().state is JobState.COMPLETED
    results = job.results()
    found = np.asarray(results["residual"])
    assert found.shape[:3] == (LAYERS, POSITIONS, SCALES)
    assert np.array_equal(found, found[:, :, 1:2] * np.arange(SCALES, dtype=np.float32)[:, None])
    assert np.abs(found[:, :, 1]).min(axis=-1).max() > 0
    assert (results.status() == 1).all()
    assert results.verify() == []


def who_did(site: Site, job: JobHandle) -> dict[int, int]:
    """Shards done by worker."""
    done: dict[int, int] = {}
    for event in site.client.queue.events(job.id, limit=10_000):
        if event.kind is EventKind.SHARD_DONE:
            worker = int(event.actor.removeprefix("worker "))
            done[worker] = done.get(worker, 0) + 1
    return done


@pytest.mark.parametrize("site", ["local"], indirect=True)
def test_the_work_of_a_pilot_that_was_killed_is_finished_by_another_and_none_is_left(site: Site) -> None:
    assert "nothing to do" in site.tick()
    job = site.submit()
    queue = site.client.queue

    def leased() -> bool:
        states = {shard.state for shard in queue.shards(job.id)}
        return ShardState.LEASED in states and ShardState.DONE in states

    assert "started tiny-" in site.tick()
    until(leased, "a lease", SECONDS)
    (pilot,) = site.active()
    (victim,) = [worker for worker in queue.workers() if worker.id == pilot.worker_id]
    os.kill(victim.pid, signal.SIGKILL)
    site.tick_until(lambda: job.refresh().state.final and not site.active(), "the end of the job and of its pilots")
    assert_right(job)
    done = who_did(site, job)
    assert sum(done.values()) == job.record.shards
    assert len(done) == 2
    states = {one.name: one.state for one in queue.pilots(active=False)}
    assert states.pop(pilot.name) is PilotState.FAILED
    assert set(states.values()) == {PilotState.ENDED}
    assert "nothing to do" in site.tick()
