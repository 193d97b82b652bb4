"""What users gave up and could not delete themselves, and what has been kept long enough, the scheduler deletes."""

from __future__ import annotations

import errno
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ndif_batch.archive.group import MANIFEST
from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import NotFoundError
from ndif_batch.queue.records import EventKind, JobState
from tests.scheduler.small_cluster import Make
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


def test_given_up_results_are_deleted_and_what_cannot_be_waits_for_the_next_round(
    client: Client, room: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submit(client) for _ in range(2)]
    with working(client, ToyEngine()) as here:
        here.run()
    for job in jobs:
        client.queue.give_up_results(job.id, "ada")
    rename = os.rename

    def refuse_the_first(source: Path, target: Path) -> None:
        if source == jobs[0].record.store:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", refuse_the_first)
        assert room().tick().leads
    assert [job.record.store.exists() for job in jobs] == [True, False]
    assert [job.id for job in client.queue.given_up()] == [jobs[0].id]
    assert room().tick().leads
    assert [job.refresh().record.archive_bytes for job in jobs] == [0, 0]
    assert not jobs[0].record.store.exists()


def test_results_that_have_been_kept_long_enough_are_deleted_and_those_of_others_stay(
    client: Client, room: Make
) -> None:
    short, long, forever, waiting = (submit(client, retention_days=days) for days in (1, 30, None, 1))
    waiting.hold()
    with working(client, ToyEngine()) as here:
        here.run()
    scheduler = room()
    scheduler.tick()
    assert all(job.refresh().record.store.is_dir() for job in (short, long, forever))
    scheduler.wait(25 * 3600)
    scheduler.tick()
    assert [job.refresh().record.store.exists() for job in (short, long, forever)] == [False, True, True]
    assert short.record.archive_bytes == 0
    told = [event for event in client.queue.events(short.id) if event.kind is EventKind.RESULTS_REMOVED]
    assert [(event.actor, event.detail["reason"]) for event in told] == [("scheduler", "kept for 1 day")]
    scheduler.wait(30 * 86_400)
    scheduler.tick()
    assert [job.refresh().record.removed_at is None for job in (long, forever, waiting)] == [False, True, True]
    assert waiting.state is JobState.HELD
    with pytest.raises(NotFoundError, match="were removed on"):
        long.results()


def leave_behind(job: JobHandle, age: timedelta) -> list[Path]:
    """What a writer on another host left in and beside a job's archive."""
    store = job.record.store
    inside = store / "logit" / ".c.0.0.far-away.77.0a1b2c3d.tmp"
    beside = store.parent / f".{store.name}.far-away.77.0a1b2c3d.tmp"
    beside.mkdir(parents=True)
    left = [beside]
    if store.is_dir():
        inside.write_bytes(b"half")
        left.append(inside)
    then = time.time() - age.total_seconds()
    for path in left:
        os.utime(path, (then, then))
    return left


def test_the_janitor_removes_what_dead_writers_left_an_hour_after_the_end_and_once(client: Client, room: Make) -> None:
    complete, cancelled, running = (submit(client) for _ in range(3))
    running.hold()
    cancelled.cancel()
    with working(client, ToyEngine()) as here:
        here.run()
    old = timedelta(hours=2)
    left = [*leave_behind(complete, old), *leave_behind(cancelled, old)]
    busy = leave_behind(running, old)
    scheduler = room()
    scheduler.tick()
    assert all(path.exists() for path in (*left, *busy))
    scheduler.wait(3700)
    scheduler.tick()
    assert [path.exists() for path in left] == [False] * len(left)
    assert all(path.exists() for path in busy)
    assert complete.results().verify() == []
    fresh = leave_behind(complete, timedelta(0))
    scheduler.tick()
    assert all(path.exists() for path in fresh)


def test_the_janitor_finishes_an_archive_whose_last_worker_died_before_it_could(client: Client, room: Make) -> None:
    complete = submit(client)
    with working(client, ToyEngine()) as here:
        here.run()
    manifest = complete.record.store / MANIFEST
    whole = manifest.read_bytes()
    manifest.unlink()
    scheduler = room()
    scheduler.wait(3000)
    scheduler.tick()
    assert not manifest.exists()
    scheduler.wait(700)
    scheduler.tick()
    scheduler.scheduler.janitor.wait()
    assert manifest.read_bytes() == whole
    assert complete.results().verify() == []
