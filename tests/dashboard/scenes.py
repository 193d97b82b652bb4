"""Clusters to look at, made through the queue's own doors: an empty one, a busy one, a broken one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import exp, sin
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from ndif_batch.client import Client, JobHandle
from ndif_batch.client.local import LocalQueue
from ndif_batch.errors import TaskError
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import Cost, DeviceReading, PilotState, Quotas, Role
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from ndif_batch.sweep.tiles import tile_tasks
from ndif_batch.worker.ending import Until
from tests import toy
from tests.worker.toy_engine import ToyCounters, ToyOutcome
from tests.worker.working import working

LAYERS, TOKENS = 24, 16
LLAMA, GEMMA, SMOL = "llama-3.1-8b", "gemma-2-9b", "smollm2-135m"
PROMPT = "the cat sat on the mat the dog ran far the cat ran far Paris Rome"
CORRUPTED = PROMPT.replace("cat", "dog")
GIB = 2**30
MANY = 10_000
HOURS = 46
NAMES = ("logit-lens", "causal-tracing", "steering-vectors", "sae-features", "head-ablation", "entity-binding")


@dataclass
class Moving:
    """A clock that tests move; it begins two days ago."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


def patching() -> Graph:
    """Activation patching: the residual stream of one run in place of another's, and what that does to two answers."""
    site = "model.layers.{layer}.output"
    return Graph(
        params=dict.fromkeys(("clean", "corrupted"), ParamType.PROMPT)
        | dict.fromkeys(("layer", "position", "answer", "distractor"), ParamType.INT),
        runs=(Run("clean", ParamRef("clean")), Run("patched", ParamRef("corrupted"))),
        nodes=(
            Node("read", run=0, site=site),
            Node("getitem", (NodeRef(0), (0, ParamRef("position")))),
            Node("write", (NodeRef(1),), run=1, site=site, index=(0, ParamRef("position"))),
            Node("read", run=1, site="lm_head.output"),
            Node("getitem", (NodeRef(3), (0, -1, ParamRef("answer")))),
            Node("getitem", (NodeRef(3), (0, -1, ParamRef("distractor")))),
            Node("sub", (NodeRef(4), NodeRef(5))),
            Node("save", (NodeRef(6),), name="logit_diff"),
            Node("save", (NodeRef(1),), name="residual"),
        ),
    )


def space(layers: int = LAYERS, tokens: int = TOKENS) -> Space:
    """A grid of layers and positions."""
    axes = (Axis("layer", {"layer": range(layers)}), Axis("position", {"position": range(tokens)}))
    return Space(axes, {"clean": PROMPT, "corrupted": CORRUPTED, "answer": "Paris", "distractor": "Rome"})


def opened(root: Path, clock: Moving | None = None) -> Client:
    """A client of the queue in ``root``, by the clock of its database or of a test."""
    settings = toy.settings(root)
    schema.upgrade(settings.database)
    return Client(settings, LocalQueue.open(settings.database, clock))


def submit(
    client: Client, name: str, user: str, model: str = LLAMA, tile: tuple[int, ...] = (1, 16), **more: Any
) -> JobHandle:
    """A patching job of a user."""
    own = Client(client.settings.model_copy(update={"user": user}), client.queue)
    size = more.pop("size", (LAYERS, TOKENS))
    plan = own.prepare(patching(), space(*size), model)
    plan = replace(plan, tile=tile, shards=tuple(tile_tasks(plan.space.shape, tile)))
    return own.submit(plan, name=name, **{"reuse": False, **more})


@dataclass
class Painter:
    """An engine that saves what patching looks like in a real model; ``fails`` says which tasks do, and how."""

    fails: Callable[[Task], str | None] = lambda task: None
    counters: ToyCounters = field(default_factory=ToyCounters)

    def run(
        self, tasks: Iterable[Task], *, nan: str, layout: str, constants: Mapping[str, Any]
    ) -> Iterator[ToyOutcome]:
        for index, task in enumerate(tasks):
            self.counters.tasks += 1
            self.counters.tokens += 2 * TOKENS
            wrong = self.fails(task)
            error = None if wrong is None else TaskError(wrong, node=4)
            yield ToyOutcome(index, {} if wrong else painted(task), error)


def painted(task: Task) -> dict[str, Any]:
    """One ridge along the early layers, another at the last position."""
    layer, position = int(str(task.bindings["layer"])), int(str(task.bindings["position"]))
    early = 3.2 * exp(-(((position - 5) / 1.4) ** 2)) / (1 + exp(layer - 11))
    late = 4.1 * exp(-(((position - 15) / 0.8) ** 2)) / (1 + exp(12 - layer))
    difference = early + late - 0.7 + 0.15 * sin(3 * layer + 5 * position)
    return {"logit_diff": np.float32(difference), "residual": np.full(toy.WIDTH, difference, np.float32)}


def painting(client: Client, model: str = LLAMA, shards: int | None = None, engine: Painter | None = None) -> None:
    """Run what waits for a model, or so many shards of it, down to the archive."""
    tokens = 2 * TOKENS * TOKENS * (shards or 1000)
    with working(client, engine or Painter(), model=model, max_tokens=tokens) as worker:
        worker.run(Until(idle=True) if shards is None else Until(one=True))


def empty(root: Path) -> None:
    """A cluster that knows a model and an administrator, and nobody has asked it for anything."""
    with opened(root) as client:
        toy.add(client, LLAMA, toy.site_map(LAYERS, 64))
        client.queue.set_role("root", Role.ADMIN, actor="root")


def busy(root: Path) -> None:
    """Three models, two days of work of four users, and jobs in every state."""
    clock = Moving(datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=HOURS, minutes=13))
    with opened(root, clock) as client:
        queue = client.queue
        people(client)
        for name, sites in ((LLAMA, LAYERS), (GEMMA, 42), (SMOL, 30)):
            toy.add(client, name, toy.site_map(sites, 64))
        days(client, clock)
        broke = submit(client, "ioi-patching-seeds", "bob", size=(LAYERS, TOKENS), seed=3)
        painting(client, engine=Painter(lambda task: "position 11 is past the prompt" if task.id % 16 == 11 else None))
        done = submit(client, "ioi-patching", "ada", tile=(2, TOKENS), retention_days=30)
        painting(client)
        clock.forward(minutes=9)
        submit(client, "attention-knockout", "chen", hold=True)
        gone = submit(client, "wrong-layers", "bob", GEMMA)
        queue.cancel(gone.id, "bob")
        running = submit(client, "induction-heads", "ada")
        queue.because("a deadline on Friday").set_priority(running.id, 5, "root")
        painting(client, shards=13)
        workers(client, clock, running)
        submit(client, "steering-scales", "chen", GEMMA, size=(40, TOKENS))
        submit(client, "logit-lens", "bob", SMOL)
        submit(client, "probe-truthfulness", "ada")
        assert broke.refresh().state is JobState.FAILED
        assert done.refresh().state is JobState.COMPLETED
        clock.now = datetime.now(UTC)
        queue.because("the paper is due on Friday").set_shares("chen", 1.5, actor="root")
        queue.because("its traces fill the disk").set_quotas("bob", Quotas(100_000, 64, 200 * GIB), actor="root")
        queue.because("new weights come tonight").pause(SMOL, actor="root")
        queue.because("they are here").resume(SMOL, actor="root")
        queue.because("most jobs of the week want it").pin_model(LLAMA, 2, actor="root")
        assert queue.acquire_leader("scheduler", "head-1", 86_400)


def people(client: Client) -> None:
    """Users of every role, with shares and quotas."""
    queue = client.queue
    for name, role in (("root", Role.ADMIN), ("ada", Role.USER), ("bob", Role.USER), ("chen", Role.USER)):
        queue.set_role(name, role, actor="root")
    queue.set_role("rita", Role.READER, actor="root")
    queue.set_shares("ada", 2, actor="root")
    queue.set_quotas("bob", Quotas(pending_tasks=100_000, running_shards=64, archive_bytes=200 * GIB), actor="root")


def days(client: Client, clock: Moving) -> None:
    """Two days in which three users each ran a job after another, more by day than by night."""
    rng, queue = Random(7), client.queue
    worker = queue.register_worker(SMOL, "gpu-07", 4242)
    for hour in range(HOURS):
        if hour % (HOURS // 2) == 0:
            for user in ("ada", "bob", "chen"):
                submit(client, rng.choice(NAMES), user, SMOL, size=(HOURS // 2, TOKENS))
        load = 1.2 + sin(hour / 24 * 6.3 - 1.2)
        leases = queue.lease(worker, SMOL, 10**6, 3600, max_shards=3)
        parts = (load * weight * rng.uniform(0.3, 1.5) for weight in (1.0, 0.6, 0.35))
        costs = [Cost(900 * part, int(2.1e7 * part), int(1.2e7 * part)) for part in parts]
        done = [Finished(one.shard.id, one.shard.epoch, cost=cost) for one, cost in zip(leases, costs, strict=True)]
        assert queue.commit(done)
        clock.forward(hours=1)
    queue.stop_worker(worker)


def workers(client: Client, clock: Moving, running: JobHandle) -> None:
    """Pilots of two models on Slurm nodes, one of them at work on ``running``, and one that waits."""
    queue = client.queue
    for number, (model, node, used) in enumerate(((LLAMA, "gpu-01", 61), (LLAMA, "gpu-02", 58), (SMOL, "gpu-07", 9))):
        name = f"{model}-{number:02x}f3"
        resources = {"gpus_per_node": 1, "slurm_partition": "gpu", "timeout_min": 240}
        pilot = queue.add_pilot(name, model, "slurm", resources, actor="scheduler")
        queue.update_pilot(
            pilot.id, PilotState.REQUESTED, PilotState.QUEUED, external_id=f"{8120 + number}", actor="scheduler"
        )
        worker = queue.register_worker(model, node, 3100 + number, pilot=name)
        clock.forward(seconds=38)
        leases = queue.lease(worker, model, 4 * 512, 600)
        reading = DeviceReading("NVIDIA H200", used * GIB, 140 * GIB, 0.9 - 0.2 * number)
        queue.heartbeat(worker, 600, {lease.shard.id: 5 for lease in leases}, reading)
    pilot = queue.add_pilot(
        f"{GEMMA}-91bc", GEMMA, "slurm", {"gpus_per_node": 2, "slurm_partition": "gpu"}, actor="scheduler"
    )
    queue.update_pilot(
        pilot.id, PilotState.REQUESTED, PilotState.QUEUED, external_id="8127", reason="Resources", actor="scheduler"
    )
    assert running.refresh().state is JobState.RUNNING


EVIL = "<script>document.title='owned'</script>"
"""What a user may call a job."""


def broken(root: Path) -> None:
    """A cluster on a bad day: jobs that failed, workers and pilots that died, a pause, and a name that is an attack."""
    clock = Moving(datetime.now(UTC) - timedelta(minutes=50))
    with opened(root, clock) as client:
        queue = client.queue
        people(client)
        toy.add(client, LLAMA, toy.site_map(LAYERS, 64))
        toy.add(client, GEMMA, toy.site_map(42, 64))
        submit(client, EVIL, "bob", size=(6, TOKENS))
        submit(client, "a-name-" + "that-never-ends-" * 8, "ada", size=(6, TOKENS), seed=1)
        painting(client, engine=Painter(lambda task: "CUDA error: an illegal memory access" if task.id % 3 else None))
        waits = submit(client, "waits-for-a-worker", "chen", GEMMA)
        lost = submit(client, "lost-its-worker", "ada", seed=2)
        died(client, LLAMA, "gpu-03", "no heartbeat for 60 s")
        pilot = queue.add_pilot(f"{GEMMA}-0bad", GEMMA, "slurm", {"gpus_per_node": 1}, actor="scheduler")
        reason = "OUT_OF_MEMORY: the weights do not fit"
        queue.update_pilot(pilot.id, PilotState.REQUESTED, PilotState.FAILED, reason=reason, actor="scheduler")
        clock.forward(minutes=49)
        queue.because("the file system is full").pause(actor="root")
        assert waits.refresh().state is JobState.PENDING
        assert lost.refresh().state is JobState.RUNNING


def died(client: Client, model: str, node: str, reason: str) -> None:
    """A worker that leased something and was never heard of again."""
    worker = client.queue.register_worker(model, node, 666)
    assert client.queue.lease(worker, model, 4 * 512, 60)
    client.queue.lose_worker(worker, died=True, reason=reason, actor="scheduler")


def crowded(root: Path) -> None:
    """Ten thousand jobs of one user, and one of another."""
    with opened(root) as client:
        toy.add(client, LLAMA, toy.site_map(LAYERS, 64))
        people(client)
        first = submit(client, "job-00001", "ada", size=(2, 2), tile=(2, 2))
        multiply(root / "queue.db", first.id)
        submit(client, "needle", "bob", size=(2, 2), tile=(2, 2))


def multiply(file: Path, job_id: int) -> None:
    """Copies of a job, with its shard and its event, up to ``MANY``: one by one this takes more than a minute."""
    with sqlite3.connect(file) as connection:
        for table, owner in (("job", "job.id"), ("shard", "job_id"), ("event", "job_id")):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            new = {"id": "NULL", "job_id": "number", "name": "printf('job-%05d', number)", "key": "NULL"}
            new |= {"id": "number"} if table == "job" else {}
            columns = ", ".join(f'"{name}"' for name in names)
            values = ", ".join(new.get(name, f'"{name}"') for name in names)
            until = f"SELECT number + 1 FROM numbers WHERE number < {job_id + MANY - 1}"
            connection.execute(
                f"WITH RECURSIVE numbers(number) AS (SELECT {job_id + 1} UNION ALL {until})"
                f" INSERT INTO {table} ({columns}) SELECT {values} FROM numbers, {table} WHERE {owner} = {job_id}"
            )


NODES = (
    *(
        f"gpu-{number:02}|gpu*|{'allocated' if number < 3 else 'idle'}|64|1031000|gpu:h200:8|none"
        for number in range(1, 5)
    ),
    "gpu-05|gpu*|drained|64|1031000|gpu:h200:8|a fan is broken",
    *(f"gpu-{number:02}|preempt|mixed|48|515000|gpu:a100:4|none" for number in range(6, 9)),
)
PARTITIONS = ("gpu*|up|2-00:00:00|4|mixed", "gpu*|up|2-00:00:00|1|drained", "preempt|up|12:00:00|3|mixed")


def site(folder: Path) -> None:
    """A command ``sinfo`` that prints ``NODES`` and ``PARTITIONS``."""
    folder.mkdir()
    lines = {"nodes": NODES, "partitions": PARTITIONS}
    for name, rows in lines.items():
        (folder / name).write_text("".join(f"{row}\n" for row in rows))
    script = f'#!/bin/sh\ncase "$*" in *--Node*) cat {folder}/nodes;; *) cat {folder}/partitions;; esac\n'
    (folder / "sinfo").write_text(script)
    (folder / "sinfo").chmod(0o755)
