"""Why a job waits is told in one word, and what to do about it."""

from __future__ import annotations

import json

import pytest

from ndif_batch.client import Client
from ndif_batch.queue.protocol import Finished
from tests import toy
from tests.cli.conftest import Run
from tests.worker.working import submit


def listed(run: Run, job: int = 1) -> str:
    """The reason of a job, which the list and the job itself tell alike."""
    reasons = {row["id"]: row["reason"] for row in json.loads(run("ls", "-o", "json").out)}
    assert json.loads(run("show", job, "-o", "json").out)["reason"] == reasons[job]
    return str(reasons[job])


def headline(run: Run, job: int = 1) -> str:
    return run("explain", job).out.splitlines()[0]


def test_a_pause_of_one_model_or_of_everything_is_told_with_what_ends_it(run: Run, client: Client) -> None:
    submit(client)
    assert listed(run) == "Resources"
    run("cluster", "pause", "--model", "toy")
    assert listed(run) == "Paused"
    assert headline(run).endswith(
        "is PENDING: Paused: model toy is paused: `ndif-batch cluster resume --model toy` ends the pause"
    )
    run("cluster", "pause")
    assert headline(run).endswith("Paused: everything is paused: `ndif-batch cluster resume` ends the pause")
    run("cluster", "resume")
    run("cluster", "resume", "--model", "toy")
    assert listed(run) == "Resources"
    run("cluster", "pause", "--model", "another")
    assert listed(run) == "Resources"


def test_a_quota_is_told_with_its_number(run: Run, client: Client) -> None:
    for _ in range(2):
        submit(client)
    run("user", "set", "ada", "--running-shards", 2)
    worker = client.queue.register_worker(toy.NAME, "n0", 1)
    leases = client.queue.lease(worker, toy.NAME, 10**6, 60.0)
    assert {lease.job.id for lease in leases} == {1}
    assert listed(run, 2) == "Quota"
    assert "Quota: ada runs 2 of 2 shards at once" in headline(run, 2)
    assert "ndif-batch user set ada --running-shards" in headline(run, 2)
    assert headline(run).endswith("is RUNNING")
    run("user", "set", "ada", "--running-shards", 3)
    assert listed(run, 2) == "Priority"
    run("user", "set", "ada", "--running-shards", "none")
    assert listed(run, 2) == "Priority"


def test_a_job_that_ran_and_waits_again_says_why(run: Run, client: Client) -> None:
    submit(client)
    worker = client.queue.register_worker(toy.NAME, "n0", 1)
    (lease,) = client.queue.lease(worker, toy.NAME, 1, 60.0)
    client.queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert "is RUNNING: Priority" in headline(run)
    run("cluster", "pause")
    assert "is RUNNING: Paused: everything" in headline(run)


@pytest.mark.parametrize("hold", [True, False])
def test_a_hold_comes_before_a_pause(run: Run, client: Client, hold: bool) -> None:
    submit(client, hold=hold)
    run("cluster", "pause")
    assert listed(run) == ("Held" if hold else "Paused")
    assert ("`ndif-batch release 1` lets it go" in headline(run)) is hold
