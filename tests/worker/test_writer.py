"""Finished shards are written in order beside the engine, a few at a time, and a failed write is not hidden."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, Full
from threading import Event
from typing import Any
from weakref import finalize

import pytest

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.sweep.task import Task
from ndif_batch.worker.writer import WAITING, Waiting, Writer
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working

WAIT_SECONDS = 30
BAD = -1


class Disk:
    """Remembers the numbers that were written and committed. ``BAD`` fails; while ``go`` is unset a write waits."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.committed: list[list[int]] = []
        self.begun, self.go = Event(), Event()
        self.go.set()

    def write(self, number: int) -> bool:
        self.begun.set()
        assert self.go.wait(WAIT_SECONDS)
        if number == BAD:
            raise UnavailableError("the disk is full")
        self.written.append(number)
        return True

    def commit(self, numbers: Sequence[int]) -> None:
        self.committed.append(list(numbers))

    def writer(self) -> Writer[int]:
        return Writer(self.write, self.commit)


def test_shards_are_written_in_the_order_in_which_they_were_given() -> None:
    disk = Disk()
    with disk.writer() as writer:
        for number in range(20):
            writer.put(number)
        writer.flush()
        assert disk.written == list(range(20))
        writer.put(20)
    assert [number for batch in disk.committed for number in batch] == list(range(21))


def test_what_waits_together_is_committed_together() -> None:
    disk = Disk()
    disk.go.clear()
    with disk.writer() as writer:
        writer.put(0)
        assert disk.begun.wait(WAIT_SECONDS)
        for number in (1, 2, 3):
            writer.put(number)
        disk.go.set()
        writer.flush()
    assert disk.committed == [[0], [1, 2, 3]]


def test_what_was_not_written_is_not_committed() -> None:
    disk = Disk()
    with Writer(lambda number: number % 2 == 0 and disk.write(number), disk.commit) as writer:
        for number in range(4):
            writer.put(number)
    assert [number for batch in disk.committed for number in batch] == [0, 2]


def test_after_a_failure_the_rest_is_dropped_and_every_call_raises_it() -> None:
    disk = Disk()
    with suppress(UnavailableError), disk.writer() as writer:
        writer.put(BAD)
        with pytest.raises(UnavailableError, match="the disk is full"):
            writer.flush()
        with pytest.raises(UnavailableError, match="the disk is full"):
            writer.put(1)
    assert disk.written == []


def test_what_was_written_before_a_failure_is_committed() -> None:
    disk = Disk()
    disk.go.clear()
    with suppress(UnavailableError), disk.writer() as writer:
        writer.put(0)
        assert disk.begun.wait(WAIT_SECONDS)
        for number in (1, BAD, 2):
            writer.put(number)
        disk.go.set()
        writer.flush()
    assert [number for batch in disk.committed for number in batch] == [0, 1]


def failing_at_its_end(disk: Disk) -> None:
    with disk.writer() as writer:
        writer.put(BAD)


def test_a_failure_at_the_end_is_raised_by_the_context() -> None:
    with pytest.raises(UnavailableError, match="the disk is full"):
        failing_at_its_end(Disk())


def test_what_has_not_begun_can_be_dropped() -> None:
    disk = Disk()
    disk.go.clear()
    with disk.writer() as writer:
        writer.put(1)
        assert disk.begun.wait(WAIT_SECONDS)
        writer.put(2)
        writer.drop()
        disk.go.set()
    assert disk.committed == [[1]]


def test_as_many_small_shards_wait_as_are_allowed() -> None:
    waiting = Waiting(640, abs)
    for number in range(WAITING):
        waiting.put_nowait(number % 10)
    with pytest.raises(Full):
        waiting.put_nowait(0)
    assert [waiting.get_nowait() for _ in range(WAITING)] == [number % 10 for number in range(WAITING)]
    with pytest.raises(Empty):
        waiting.get_nowait()


def test_large_shards_wait_by_their_bytes_and_one_always_may() -> None:
    waiting = Waiting(640, abs)
    waiting.put_nowait(5000)
    with pytest.raises(Full):
        waiting.put_nowait(1)
    assert waiting.get_nowait() == 5000
    waiting.put_nowait(400)
    waiting.put_nowait(400)
    with pytest.raises(Full):
        waiting.put_nowait(None)


class Kept:
    """How many values of an engine's are in memory, and the most that were."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self, task: Task, saves: dict[str, Any]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        finalize(saves["residual"], self._gone)

    def _gone(self) -> None:
        self.now -= 1


def test_what_is_written_leaves_the_memory_while_the_round_still_runs(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndif_batch.worker.writer.WAITING", 4)
    job = submit(client, tile=(1, 1, 1), repeats=4)
    kept = Kept()
    engine = ToyEngine(after=kept)
    with working(client, engine) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [48]
    assert kept.most <= 12
    assert_right(job)


def test_the_engine_runs_its_next_call_while_the_shards_of_the_last_are_written(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(client)
    second, fsync = Event(), os.fsync

    def before(task: Task) -> None:
        if len(engine.calls) == 2:
            second.set()

    def patient(descriptor: int) -> None:
        assert not engine.calls or second.wait(WAIT_SECONDS)
        fsync(descriptor)

    engine = ToyEngine(before)
    with working(client, engine, max_tokens=9) as here, monkeypatch.context() as patch:
        patch.setattr("os.fsync", patient)
        here.run()
    assert_right(job)
