"""What users gave up and could not delete themselves, the scheduler deletes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ndif_batch.client import Client
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
