"""An archive without its manifest is finished by someone, and by one at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ndif_batch.client import Client
from ndif_batch.queue.records import JobRecord, WorkerRecord, WorkerState
from ndif_batch.worker.leftovers import left_over
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


@pytest.fixture
def ended(client: Client) -> JobRecord:
    job = submit(client)
    with working(client, ToyEngine()) as here:
        here.run()
    return job.refresh().record


@pytest.fixture
def workers(client: Client) -> list[WorkerRecord]:
    """The one that asks, and another."""
    for pid in (1, 2):
        client.queue.register_worker(toy.NAME, "here", pid)
    return client.queue.workers()[:2]


def test_a_job_that_just_ended_is_left_to_a_living_worker(ended: JobRecord, workers: list[WorkerRecord]) -> None:
    me, other = workers
    assert left_over([ended], [me, other], me.id) == []


@pytest.mark.parametrize("state", [WorkerState.LOST, WorkerState.STOPPED])
def test_a_worker_that_is_gone_finishes_nothing(
    ended: JobRecord, workers: list[WorkerRecord], state: WorkerState
) -> None:
    me, other = workers
    assert left_over([ended], [me, replace(other, state=state)], me.id) == [ended]


def test_a_silent_worker_counts_as_gone(ended: JobRecord, workers: list[WorkerRecord]) -> None:
    me, other = workers
    assert left_over([ended], [me, replace(other, alive_until=me.registered_at)], me.id) == [ended]


def test_a_job_that_ended_long_ago_waits_for_nobody(ended: JobRecord, workers: list[WorkerRecord]) -> None:
    me, other = workers
    long_ago = replace(ended, finished_at=me.registered_at - timedelta(hours=2))
    assert left_over([long_ago], [me, other], me.id) == [long_ago]


def test_workers_and_jobs_of_other_models_do_not_matter(ended: JobRecord, workers: list[WorkerRecord]) -> None:
    me, other = workers
    assert left_over([ended], [me, replace(other, model="another")], me.id) == [ended]
    assert left_over([replace(ended, model="another")], [me], me.id) == []
