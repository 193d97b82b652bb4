"""``sweep plan`` tells the truth: what it says is compared with what a worker of the real engine then does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ndif_batch.client import Client
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import load
from ndif_batch.queue.protocol import LEASE_PASSES
from ndif_batch.sweep.space import Space
from ndif_batch.worker.ending import Until
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.loop import Worker
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.progress import Progress
from ndif_batch.worker.provenance import Runtime
from tests import tiny
from tests.cli.conftest import Run

BATCH_TOKENS = 64
SECONDS_PER_TOKEN = 0.004
WITHIN = 0.3

READING = """version: 1
name: reading
model: tiny
job: job.py
parameters:
  layer: [0, 1]
  position: {range: [0, 3]}
  prompt: [the cat sat, the dog ran far, on mat the cat sat on the, Paris Rome far]
  answer: {values: [Paris, Rome]}
"""
SWEEPS = {
    "grid": READING,
    "seeds": READING + "seeds: 3\n",
    "exceptions": READING + "exclude: [{layer: 0, position: 1}, {prompt: Paris Rome far}]\nsave: [logit]\n",
    "random": READING.replace("parameters:", "method: random\nsamples: 40\nparameters:"),
    "residuals": READING + "save: [residual]\n",
}


@pytest.fixture(autouse=True)
def model(client: Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    client.add_model(str(tiny.write(tmp_path_factory.mktemp("source"))), tiny.NAME)


@contextmanager
def worker(client: Client) -> Iterator[tuple[Worker, Engine]]:
    """A worker with the real engine, whose clock goes on by what goes through the model."""
    info = client.model_info(tiny.NAME)
    engine = Engine(load(info, "cpu"), BATCH_TOKENS)
    worker_id = client.queue.register_worker(tiny.NAME, "here", 1)
    heart = Heartbeat(client.queue, worker_id, lease_seconds=60, every_seconds=60)
    runtime = Runtime("here", "cpu", str(engine.model.layout))
    jobs = OpenJobs(client.queue.model(tiny.NAME), info.tokenizer, runtime, client.settings.blobs)
    meter = Meter(engine.counters, clock=lambda: SECONDS_PER_TOKEN * engine.counters.tokens)
    tokens = LEASE_PASSES * BATCH_TOKENS
    yield Worker(client.queue, engine, jobs, heart, model=tiny.NAME, max_tokens=tokens, meter=meter), engine
    client.queue.stop_worker(worker_id)


def drained(client: Client) -> tuple[Progress, Engine]:
    with worker(client) as (here, engine):
        return here.run(Until(idle=True)), engine


def planned(run: Run, folder: Path, text: str) -> dict[str, Any]:
    (folder / "sweep.yaml").write_text(text)
    told = run("sweep", "plan", "sweep.yaml", "--batch-tokens", BATCH_TOKENS, "-o", "json")
    assert told.code == 0, told.err
    found: dict[str, Any] = json.loads(told.out)
    return found


def gpu_seconds(client: Client) -> float:
    return sum(one.gpu_seconds for one in client.queue.workers())


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_plan_is_what_then_happens(run: Run, client: Client, folder: Path, kind: str) -> None:
    warm = READING.replace("layer: [0, 1]", "layer: [1]").replace("[Paris, Rome]", "[the]")
    planned(run, folder, warm)
    run("sweep", "run", "sweep.yaml")
    drained(client)
    plan, before = planned(run, folder, SWEEPS[kind]), gpu_seconds(client)
    run("sweep", "run", "sweep.yaml")
    done, engine = drained(client)
    job = client.job(2)
    space = Space.from_json(job.record.space)
    results = job.results()

    skipped = space.excluded()
    ran = [task for task in range(space.size) if skipped is None or not skipped[task]]
    assert plan["tasks"] == len(ran) == engine.counters.tasks
    assert plan["excluded_points"] == space.size - len(ran)
    assert done.tasks_failed == 0
    prompts = [str(space.bindings(task)["prompt"]) for task in ran]
    assert plan["unique_prompts"] == len(set(prompts))
    assert plan["tokens_without_sharing"] == sum(len(prompt.split()) for prompt in prompts)
    assert plan["passes"] == pytest.approx(engine.counters.passes, rel=WITHIN)
    assert plan["tokens"] == pytest.approx(engine.counters.tokens, rel=WITHIN)
    assert plan["tokens"] < plan["tokens_without_sharing"]
    assert plan["gpu_seconds"] == pytest.approx(gpu_seconds(client) - before, rel=WITHIN)
    assert plan["pass_bytes"] == pytest.approx(engine.counters.estimated_bytes, rel=WITHIN)
    weights = sum(tensor.nbytes for tensor in engine.model.module.state_dict().values())
    assert plan["peak_bytes"] - plan["pass_bytes"] == pytest.approx(weights, rel=WITHIN)
    files = [path for path in job.record.store.rglob("*") if path.is_file()]
    assert plan["files"] == len(files)
    labels = sum(8 * len(axis) * len(axis.columns) for axis in space.axes)
    saved = sum(array.nbytes for array in results.values()) + space.size
    assert plan["bytes"] == pytest.approx(saved + labels, rel=WITHIN)


def test_a_plan_counts_only_what_earlier_jobs_have_not_saved(run: Run, client: Client, folder: Path) -> None:
    planned(run, folder, READING)
    run("sweep", "run", "sweep.yaml")
    drained(client)
    plan = planned(run, folder, READING.replace("the cat sat, ", "").replace("[Paris, Rome]", "[Rome, far, Paris]"))
    run("sweep", "run", "sweep.yaml")
    done, engine = drained(client)
    assert (plan["tasks"], plan["reused_tasks"]) == (done.tasks_done, done.tasks_reused)
    assert done.tasks_reused == 36
    assert plan["tokens"] == pytest.approx(engine.counters.tokens, rel=WITHIN)
    assert plan["passes"] == pytest.approx(engine.counters.passes, rel=WITHIN)
    again = planned(run, folder, (folder / "sweep.yaml").read_text())
    assert (again["passes"], again["tokens"], again["gpu_seconds"], again["tokens_without_sharing"]) == (0, 0, 0.0, 0)


def test_seconds_are_unknown_until_a_worker_has_run(run: Run, client: Client, folder: Path) -> None:
    assert planned(run, folder, READING)["gpu_seconds"] is None
    table = run("sweep", "plan", "sweep.yaml").out
    assert "gpu seconds             unknown: no worker of tiny has run lately" in table
