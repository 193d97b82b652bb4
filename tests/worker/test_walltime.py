"""A worker takes nothing that it cannot end, and ends before its walltime."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, main_thread

import pytest

from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.errors import SettingsError, TimedOutError
from ndif_batch.models.info import FILE
from ndif_batch.queue import Queue
from ndif_batch.queue.records import ShardState, WorkerState
from ndif_batch.sweep.task import Task
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.process import run
from ndif_batch.worker.walltime import Walltime, walltime
from tests import tiny
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working


def test_the_earliest_end_counts() -> None:
    found = walltime(500.0, {"SLURM_JOB_END_TIME": "1300", "NDIF_BATCH_WALLTIME": "400"}, 1000.0, lambda: 7.0)
    assert (found.ends_at, found.reserve) == (307.0, 20.0)
    assert walltime(40.0, {}, 1000.0, lambda: 7.0).reserve == 10.0
    assert walltime(None, {}, 1000.0).ends_at is None


def test_a_variable_that_is_no_time_is_refused() -> None:
    with pytest.raises(SettingsError, match="SLURM_JOB_END_TIME is 'soon'"):
        walltime(None, {"SLURM_JOB_END_TIME": "soon"}, 0.0)


def test_only_what_fits_before_the_end_is_leased() -> None:
    now = 0.0
    end = Walltime(120.0, lambda: now, 20.0)
    assert end.tokens(None, 1000) == 1
    assert end.tokens(5.0, 1000) == 500
    assert end.tokens(50.0, 1000) == 1000
    now = 99.9
    assert (end.tokens(5.0, 1000), end.over) == (0, False)
    now = 100.0
    assert end.over
    assert Walltime().tokens(None, 1000) == 1000


class Slow:
    """An engine in whose calls every task takes two seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.engine = ToyEngine(self.before)

    def clock(self) -> float:
        return self.now

    def before(self, task: Task) -> None:
        self.now += 2


@pytest.mark.parametrize(("ends_at", "done"), [(1.0, 0), (15.0, 1), (16.9, 1), (18.0, 2), (1000.0, 4)])
def test_a_worker_leaves_what_it_cannot_end_to_others(client: Client, ends_at: float, done: int) -> None:
    job, slow = submit(client), Slow()
    meter = Meter(slow.engine.counters, clock=slow.clock)
    end = Walltime(ends_at, slow.clock, reserve=5.0)
    with working(client, slow.engine, clock=slow.clock, meter=meter, walltime=end) as here:
        assert here.run().shards_done == done
        assert slow.now <= ends_at
    shards = client.queue.shards(job.id)
    assert sum(shard.state is ShardState.DONE for shard in shards) == done
    assert {(shard.attempts, shard.deaths) for shard in shards} == {(0, 0)}
    with working(client, ToyEngine()) as other:
        other.run()
    assert_right(job)


def test_a_shard_larger_than_a_lease_is_run_if_there_is_time_for_it(client: Client) -> None:
    job, slow = submit(client), Slow()
    meter = Meter(slow.engine.counters, clock=slow.clock)
    end = Walltime(100.0, slow.clock, reserve=5.0)
    with working(client, slow.engine, max_tokens=5, clock=slow.clock, meter=meter, walltime=end) as here:
        assert here.run().shards_done == 4
    assert_right(job)


def test_the_end_drains_a_worker_in_the_middle_of_a_call(client: Client) -> None:
    job, slow = submit(client, tile=(4, 3)), Slow()
    end = Walltime(20.0, slow.clock, reserve=10.0)
    with working(client, slow.engine, clock=slow.clock, walltime=end) as here:
        assert here.run().tasks_done < 12
    assert 10.0 < slow.now <= 20.0
    (shard,) = client.queue.shards(job.id)
    assert (shard.state, shard.attempts, shard.deaths) == (ShardState.PENDING, 0, 0)


@pytest.fixture
def ready(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Settings:
    """Settings of a queue that knows a model with weights."""
    client.add_model(str(tiny.write(tmp_path_factory.mktemp("source"))), tiny.NAME)
    return client.settings


def test_a_walltime_that_is_over_when_the_model_is_there_is_an_error(ready: Settings) -> None:
    with pytest.raises(TimedOutError, match=r"before the worker had loaded its model\n.*longest_walltime"):
        run(ready, tiny.NAME, walltime_seconds=0.01)
    with Queue.open(ready.database) as queue:
        assert [worker.state for worker in queue.workers()] == [WorkerState.STOPPED]


@pytest.fixture
def interrupted(ready: Settings) -> Iterator[Settings]:
    """Who loads the model gets a signal while it reads the model's entry, which does not end."""
    with Queue.open(ready.database) as queue:
        entry = Path(queue.model(tiny.NAME).path) / FILE
    entry.unlink()
    os.mkfifo(entry)
    over, main = Event(), main_thread().ident
    assert main is not None

    def interrupt() -> None:
        with entry.open("w"):  # which waits for the reader
            if not over.is_set():
                signal.pthread_kill(main, signal.SIGUSR2)
            over.wait()

    thread = Thread(target=interrupt)
    thread.start()
    yield ready
    over.set()
    os.close(os.open(entry, os.O_RDONLY | os.O_NONBLOCK))  # if nobody was the reader
    thread.join()


def test_a_signal_while_the_model_is_loaded_ends_the_worker(interrupted: Settings) -> None:
    ended = run(interrupted, tiny.NAME, walltime_seconds=3600).ended
    assert re.fullmatch(r"SIGUSR2 while it loaded its model, \d{4} s before the end of its walltime", ended)
    with Queue.open(interrupted.database) as queue:
        assert [worker.state for worker in queue.workers()] == [WorkerState.STOPPED]


def test_a_signal_near_the_end_while_the_model_is_loaded_is_an_error(interrupted: Settings) -> None:
    with pytest.raises(TimedOutError, match=r"before the worker had loaded its model\n.*longest_walltime"):
        run(interrupted, tiny.NAME, walltime_seconds=60)
    with Queue.open(interrupted.database) as queue:
        assert [worker.state for worker in queue.workers()] == [WorkerState.STOPPED]


def test_a_worker_says_why_it_ended(ready: Settings) -> None:
    assert run(ready, tiny.NAME, until_idle=True).ended == "there was no more work"
    assert run(ready, tiny.NAME, once=True).ended == "its round is over"


def test_the_end_of_the_walltime_is_why_a_worker_ended(client: Client) -> None:
    submit(client, tile=(4, 3))
    slow = Slow()
    with working(client, slow.engine, clock=slow.clock, walltime=Walltime(20.0, slow.clock, reserve=10.0)) as here:
        assert here.run().ended == "the end of its walltime is near"
        assert here.heart.holds_any


def test_a_signal_is_told_with_the_time_that_was_left() -> None:
    end = Walltime(100.0, lambda: 60.0, reserve=20.0)
    assert f"SIGUSR2{end}" == "SIGUSR2, 40 s before the end of its walltime"
    assert end.near
    assert not Walltime(100.0, lambda: 10.0, reserve=20.0).near
    assert f"SIGUSR2{Walltime()}" == "SIGUSR2"
