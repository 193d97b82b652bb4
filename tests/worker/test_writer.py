"""Finished shards are written in order beside the engine, a few at a time, and a failed write is not hidden."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from threading import Event

import pytest

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.sweep.task import Task
from ndif_batch.worker.writer import Writer
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working

WAIT_SECONDS = 30


def fail() -> None:
    raise UnavailableError("the disk is full")


def test_work_is_done_in_the_order_in_which_it_was_given() -> None:
    done: list[int] = []
    with Writer() as writer:
        for number in range(20):
            writer.put(partial(done.append, number))
        writer.flush()
        assert done == list(range(20))
        writer.put(partial(done.append, 20))
    assert done[-1] == 20


def test_after_a_failure_the_rest_is_dropped_and_every_call_raises_it() -> None:
    done: list[int] = []
    with suppress(UnavailableError), Writer() as writer:
        writer.put(fail)
        with pytest.raises(UnavailableError, match="the disk is full"):
            writer.flush()
        with pytest.raises(UnavailableError, match="the disk is full"):
            writer.put(partial(done.append, 1))
    assert done == []


def failing_at_its_end() -> None:
    with Writer() as writer:
        writer.put(fail)


def test_a_failure_at_the_end_is_raised_by_the_context() -> None:
    with pytest.raises(UnavailableError, match="the disk is full"):
        failing_at_its_end()


def test_what_has_not_begun_can_be_dropped() -> None:
    done: list[int] = []
    begun, go = Event(), Event()

    def first() -> None:
        begun.set()
        assert go.wait(WAIT_SECONDS)
        done.append(1)

    with Writer() as writer:
        writer.put(first)
        assert begun.wait(WAIT_SECONDS)
        writer.put(partial(done.append, 2))
        writer.drop()
        go.set()
    assert done == [1]


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
