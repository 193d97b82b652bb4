"""A site as its users and administrators have it: Slurm, PostgreSQL, a scheduler that runs, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from ndif_batch.archive.files import is_temporary
from ndif_batch.cli.main import app
from ndif_batch.client import Client
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import EventKind, EventRecord, ShardState, WorkerRecord
from tests import tiny
from tests.afterwards import DIES_WITH_US
from tests.devcluster import DevCluster
from tests.waiting import until

PROMPT = "the cat sat on"
JOB = """from ndif_batch import param


def build(lm):
    with lm.trace(param("prompt")) as t:
        hidden = lm.model.layers[param("layer")].output[0, param("position")]
        (hidden * param("scale")).save("residual")
    return t
"""
LAYERS, POSITIONS, SCALES = 2, 4, 513
"""The last axis is so long that each point of the others is a shard."""
SECONDS = 240.0
"""The longest wait; only what never comes takes it."""
QUICK = {
    "launcher": "slurm",
    "tick_seconds": 0.3,
    "worth": 0.001,
    "least_seconds": 0.001,
    "idle_seconds": 0,
    "residence_seconds": 0,
}
WHOLE_NODE = {"gpus_per_node": 2, "cpus_per_task": 1, "mem_gb": 1}
SLOW = JOB.replace(
    "        hidden =",
    """        embedded = lm.model.embed_tokens
        embedded.output = embedded.output + 0 * param("scale")
        hidden =""",
)
"""The same results, but a run of each task's own: as slow as its passes are short."""
NODES = ("n0", "n1")
MOST_SCALES = 10_000
RETURNS = {EventKind.SHARD_RETURNED, EventKind.SHARD_EXPIRED, EventKind.SHARD_ORPHANED, EventKind.SHARD_DEFERRED}
COMMAND = (sys.executable, "-m", "ndif_batch.cli.main")


@dataclass
class Site:
    """Does everything by commands, ``client`` only looks; ``residual`` is what the model gives, as in ``conftest``."""

    client: Client
    slurm: DevCluster
    folder: Path
    patch: pytest.MonkeyPatch
    residual: NDArray[np.float32]
    scheduler: subprocess.Popen[bytes] | None = None
    jobs: list[int] = field(default_factory=list)

    def says(self, *words: object) -> str:
        """What a command prints; fails with what it says."""
        done = CliRunner().invoke(app, [*map(str, words)])
        assert done.exit_code == 0, done.output
        return done.stdout

    def schedule(self, tokens: int = 32, **cluster: Any) -> None:
        """Have the scheduler run with these settings from now on; its pilots' passes have so many ``tokens``."""
        self.stop_scheduler()
        self.patch.setenv("NDIF_BATCH_MAX_BATCH_TOKENS", str(tokens))
        self.patch.setenv("NDIF_BATCH_CLUSTER", json.dumps({**QUICK, **cluster}))
        with (self.folder / "scheduler.log").open("ab") as log:
            self.scheduler = subprocess.Popen([*DIES_WITH_US, *COMMAND, "scheduler", "run"], stdout=log, stderr=log)

    def stop_scheduler(self) -> None:
        if self.scheduler is not None:
            self.scheduler.terminate()
            assert self.scheduler.wait(30) == 0
            self.scheduler = None

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the scheduler told of one kind."""
        lines = map(json.loads, (self.folder / "scheduler.log").read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    def submit(self, scales: int = SCALES, job: str = JOB) -> int:
        """A job of tasks that no other one has, lest they be used again."""
        first = MOST_SCALES * len(self.jobs)
        (self.folder / "job.py").write_text(job)
        axes = {"layer": f"0:{LAYERS}", "position": f"0:{POSITIONS}", "scale": f"{first}:{first + scales}"}
        grid = [word for name, values in axes.items() for word in ("--grid", f"{name}={values}")]
        said = self.says("submit", "job.py", "-m", tiny.NAME, "-S", f"prompt={PROMPT}", *grid, "--parsable")
        self.jobs.append(int(said))
        return self.jobs[-1]

    def pilots(self) -> list[PilotRecord]:
        """All there ever were, oldest first."""
        return self.client.queue.pilots(active=False)

    def active(self) -> list[PilotRecord]:
        return self.client.queue.pilots()

    def worker(self, pilot: PilotRecord) -> WorkerRecord:
        return next(worker for worker in self.client.queue.workers() if worker.id == pilot.worker_id)

    def ready(self) -> list[PilotRecord]:
        """Pilots that have loaded the model."""
        active = self.active()
        ready = {worker.id for worker in self.client.queue.workers() if worker.ready_at}
        return [pilot for pilot in active if pilot.worker_id in ready]

    def in_the_middle(self) -> PilotRecord:
        """The one pilot, when it has done something of the newest job and holds more."""

        def is_in_the_middle() -> bool:
            states = {shard.state for shard in self.client.queue.shards(self.jobs[-1])}
            return {ShardState.DONE, ShardState.LEASED} <= states

        until(is_in_the_middle, "the middle of the job", SECONDS)
        (pilot,) = self.active()
        return pilot

    def until(self, true: Callable[[], object], what: str) -> None:
        def scheduled() -> object:
            assert self.scheduler is None or self.scheduler.poll() is None, "the scheduler has ended"
            return true()

        until(scheduled, what, SECONDS)

    def until_over(self) -> None:
        """Every job has ended, and every pilot."""
        queue = self.client.queue
        self.until(lambda: all(queue.job(job).state.final for job in self.jobs), "the end of the jobs")
        self.until(lambda: not self.active(), "the end of the pilots")
        self.until(lambda: not self.slurm.slurm("squeue", "--noheader"), "the end of their Slurm jobs")

    def events(self) -> list[EventRecord]:
        return self.client.queue.events(limit=100_000)

    def how_it_ended(self, pilot: PilotRecord) -> tuple[PilotState, str]:
        """The pilot's end as its row and its event tell it, which agree: its state and Slurm's word."""
        (row,) = [one for one in self.pilots() if one.id == pilot.id]
        kinds = (EventKind.PILOT_ENDED, EventKind.PILOT_FAILED)
        (event,) = [one for one in self.events() if one.kind in kinds and one.detail["pilot"] == pilot.name]
        assert row.state.final
        assert event.detail.get("reason", row.reason) == row.reason
        return row.state, (row.reason or "").partition(":")[0]

    def last_words(self, pilot: PilotRecord) -> str:
        """Why the pilot ended, as it told itself; the administrator finds it beside Slurm's word."""
        rows = json.loads(self.says("cluster", "pilots", "--all", "-o", "json"))
        (row,) = [row for row in rows if row["pilot"] == pilot.name]
        return str(row["reason"]).partition(": ")[2]

    def spans(self) -> dict[int, list[tuple[datetime, datetime]]]:
        """From when to when each worker held the shards that it has done."""
        begun: dict[int | None, datetime] = {}
        found: dict[int, list[tuple[datetime, datetime]]] = {}
        for event in self.events():
            if event.kind is EventKind.SHARD_LEASED:
                begun[event.shard_id] = event.at
            elif event.kind is EventKind.SHARD_DONE and event.worker_id is not None:
                found.setdefault(event.worker_id, []).append((begun[event.shard_id], event.at))
        return found

    def assert_handed_over(self, first: PilotRecord) -> None:
        """The pilot did some of the newest job and ended; those after it did the rest, and none of them in vain."""
        ended = next(one.ended_at for one in self.pilots() if one.id == first.id)
        assert ended is not None
        assert first.worker_id is not None
        spans = self.spans()
        assert spans.pop(first.worker_id)
        assert set(spans) == {one.worker_id for one in self.pilots() if one.id > first.id}
        assert any(leased > ended for done in spans.values() for leased, _ in done)

    def who_did(self) -> dict[int, int]:
        """Shards done by worker."""
        done: dict[int, int] = {}
        for event in self.events():
            if event.kind is EventKind.SHARD_DONE and event.worker_id is not None:
                done[event.worker_id] = done.get(event.worker_id, 0) + 1
        return done

    def assert_whole(self) -> None:
        """Every task is there once and right; nobody holds anything; every lease that was lost is accounted for."""
        self.until_over()
        for job in self.jobs:
            self._assert_right(job)
            self._assert_told(job)
        archive = self.folder / "archive"
        assert [path for path in archive.rglob("*") if is_temporary(path)] == []
        assert self.slurm.tried("status").returncode == 0, "every node is there"

    def _assert_right(self, job: int) -> None:
        (row,) = [one for one in json.loads(self.says("ls", "-o", "json")) if one["id"] == job]
        assert (row["state"], row["done"], row["failed"]) == ("COMPLETED", row["tasks"], 0)
        self.says("results", "verify", job)
        self.says("results", "export", job, self.folder / f"{job}.npz")
        with np.load(self.folder / f"{job}.npz") as exported:
            found = exported["residual"]
        scales = MOST_SCALES * self.jobs.index(job) + np.arange(found.shape[2], dtype=np.float32)
        right = self.residual[:, :, None] * scales[:, None]
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5 * scales.max())
        assert (self.client.job(job).results().status() == 1).all()

    def _assert_told(self, job: int) -> None:
        for shard in self.client.queue.shards(job):
            assert (shard.state, shard.worker_id, shard.lease_until) == (ShardState.DONE, None, None)
            told = [event.kind for event in self.events() if event.shard_id == shard.id]
            assert told.count(EventKind.SHARD_DONE) == 1
            assert told[0::2] == [EventKind.SHARD_LEASED] * (len(told) // 2)
            assert set(told[1:-1:2]) <= RETURNS
            assert told[-1] is EventKind.SHARD_DONE
