"""A worker may die at any moment, or be asked to end: nothing is lost, nothing is wrong, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from ndif_batch.client import Client, JobHandle
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState
from tests import toy
from tests.worker import mortal
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working

LEASE_SECONDS = 0.4
PATIENCE_SECONDS = 60
Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]
SHARDS = 4 * 3 * 5
STEPS = 25 * SHARDS
"""About half as many writes, to disk or to its log, as a worker makes for a job."""


def long_job(client: Client) -> JobHandle:
    return submit(client, repeats=15, tile=(1, 1, 3))


@pytest.fixture
def start(client: Client) -> Iterator[Start]:
    """Starts worker processes that do not outlive the test; one may die at a change that it makes to the disk."""
    command = [sys.executable, mortal.__file__, str(client.settings.data_dir), str(LEASE_SECONDS)]
    environment = os.environ | {"PYTHONPATH": str(Path(toy.__file__).parents[1])}
    with ExitStack() as stack:

        def started(*step: int) -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            line = [*command, *map(str, step)]
            worker = stack.enter_context(subprocess.Popen(line, env=environment, text=True, stdout=pipe, stderr=pipe))
            stack.callback(worker.kill)
            return worker

        yield started


def wait_for(worker: subprocess.Popen[str], shards: int) -> None:
    """Returns when the worker has finished so many shards."""
    assert worker.stdout is not None
    assert any(int(line) >= shards for line in worker.stdout), worker.communicate()[1]


def done(client: Client, job: JobHandle) -> int:
    return sum(shard.state is ShardState.DONE for shard in client.queue.shards(job.id))


def temporaries(job: JobHandle) -> list[Path]:
    return list(job.record.store.parent.rglob("*.tmp"))


@pytest.mark.parametrize("seed", range(3))
def test_kill_nine_at_a_random_moment_and_a_second_worker_finishes(client: Client, start: Start, seed: int) -> None:
    job = long_job(client)
    moment = random.Random(seed).randrange(1, SHARDS - 10)
    victim = start()
    wait_for(victim, moment)
    victim.kill()
    victim.communicate()
    before = done(client, job)
    assert moment <= before < SHARDS
    with working(client, ToyEngine()) as here:
        assert here.run().shards_done == SHARDS - before
    assert job.refresh().state is JobState.COMPLETED
    assert_right(job)
    assert temporaries(job) == []
    assert all(shard.worker_id is None for shard in client.queue.shards(job.id))
    finished = [e.shard_id for e in client.queue.events(job.id, limit=10_000) if e.kind is EventKind.SHARD_DONE]
    assert len(finished) == len(set(finished)) == SHARDS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_drains_within_seconds_and_gives_the_rest_back(
    client: Client, start: Start, number: signal.Signals
) -> None:
    job = long_job(client)
    worker = start()
    wait_for(worker, 5)
    worker.send_signal(number)
    began = time.monotonic()
    _, err = worker.communicate(timeout=PATIENCE_SECONDS)
    assert (worker.returncode, time.monotonic() - began < 10) == (0, True), err
    assert 5 <= done(client, job) < SHARDS
    assert {shard.state for shard in client.queue.shards(job.id)} == {ShardState.DONE, ShardState.PENDING}
    assert {shard.attempts + shard.deaths for shard in client.queue.shards(job.id)} == {0}
    assert client.queue.workers()[0].state is WorkerState.STOPPED
    assert temporaries(job) == []


def test_two_workers_share_a_job_without_doing_a_shard_twice(client: Client, start: Start) -> None:
    job = long_job(client)
    workers = [start(), start()]
    told = [worker.communicate(timeout=PATIENCE_SECONDS)[0].split() for worker in workers]
    assert sum(int(lines[-1]) for lines in told if lines) == SHARDS
    assert job.refresh().state is JobState.COMPLETED
    assert_right(job)


@pytest.mark.parametrize("seed", range(6))
def test_a_job_interrupted_at_random_steps_has_the_arrays_of_one_that_was_not(
    client: Client, start: Start, seed: int
) -> None:
    whole = long_job(client)
    with working(client, ToyEngine()) as here:
        here.run()
    job, chance = long_job(client), random.Random(seed)
    for _ in range(2):  # a shard that loses a third worker is given up, as what kills them
        victim = start(chance.randrange(1, STEPS))
        victim.communicate(timeout=PATIENCE_SECONDS)
        assert victim.returncode in (0, -signal.SIGKILL)
    with working(client, ToyEngine()) as here:
        here.run()
    assert job.refresh().state is JobState.COMPLETED
    assert_right(job)
    found, expected = job.results(), whole.results()
    for name in expected:
        assert np.array_equal(np.asarray(found[name]), np.asarray(expected[name])), name
    assert np.array_equal(found.status(), expected.status())
    assert temporaries(job) == []
    again = submit(client, repeats=15, tile=(1, 1, 3), reuse=True)
    engine = ToyEngine()
    with working(client, engine) as here:
        here.run()
    assert engine.calls == []
    assert (again.refresh().state, again.results().verify()) == (JobState.COMPLETED, [])
