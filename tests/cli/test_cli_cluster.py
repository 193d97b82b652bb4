"""The verbs about pilots: what is shown, and what an administrator orders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.queue.cluster import DeviceReading, PilotState
from tests.cli.conftest import Run
from tests.worker.working import submit


@pytest.fixture
def pilots(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    """One pilot that works and one that waits; no process is behind them."""
    monkeypatch.setenv("NDIF_BATCH_CLUSTER", json.dumps({"gpus": 2}))
    queue = client.queue
    submit(client)
    for name in ("toy-1", "toy-2"):
        queue.add_pilot(name, "toy", "local", {"timeout_min": 10}, actor="scheduler")
    worker_id = queue.register_worker("toy", "n0", 7, "toy-1")
    queue.lease(worker_id, "toy", 9, 60.0)
    queue.heartbeat(worker_id, 60.0, {}, DeviceReading("H100", 3 * 2**30, 80 * 2**30, 0.5))
    return client


def states(client: Client) -> list[PilotState]:
    return [pilot.state for pilot in client.queue.pilots(active=False)]


def test_status_tells_what_waits_and_what_is_there_for_it(run: Run, pilots: Client) -> None:
    (row,) = json.loads(run("cluster", "status", "-o", "json").out)
    assert (row["model"], row["pilots"]) == ("toy", {"running": 1, "requested": 1})
    assert (row["waiting"], row["tasks"], row["tokens"], row["paused"]) == (3, 9, 27, False)
    header, line = run("cluster", "status").out.splitlines()
    assert header.split()[:4] == ["MODEL", "PILOTS", "WAITING", "TASKS"]
    assert "1 requested, 1 running" in line


def test_why_no_pilot_works_is_told_for_the_model_and_for_the_job(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(client)
    queue = client.queue
    said = "Slurm refused the pilot: invalid partition specified: big"
    pilot = queue.add_pilot("toy-1", "toy", "slurm", {}, actor="scheduler")
    queue.update_pilot(pilot.id, PilotState.REQUESTED, PilotState.FAILED, reason=said, actor="scheduler")
    (row,) = json.loads(run("cluster", "status", "-o", "json").out)
    assert row["reason"] == f"pilot toy-1 is FAILED: {said}"
    assert f"pilot toy-1 is FAILED: {said}\n" in run("explain", 1).out
    second = queue.add_pilot("toy-2", "toy", "slurm", {}, actor="scheduler")
    queue.update_pilot(second.id, PilotState.REQUESTED, PilotState.QUEUED, reason="PartitionDown", actor="scheduler")
    assert json.loads(run("cluster", "status", "-o", "json").out)[0]["reason"] == "pilot toy-2 is QUEUED: PartitionDown"
    queue.register_worker("toy", "n0", 7, "toy-2")
    assert json.loads(run("cluster", "status", "-o", "json").out)[0]["reason"] == ""
    assert "toy-1 is" not in run("explain", 1).out


def test_pilots_are_listed_with_their_worker(run: Run, pilots: Client) -> None:
    first, second = json.loads(run("cluster", "pilots", "-o", "json").out)
    assert (first["pilot"], first["state"], first["host"], first["busy"]) == ("toy-1", "RUNNING", "n0", 0.5)
    assert first["memory"] == 3 * 2**30
    assert (second["pilot"], second["state"], second["host"]) == ("toy-2", "REQUESTED", None)
    assert "3.0 GiB" in run("cluster", "pilots").out


def test_a_drained_pilot_learns_it_from_its_next_heartbeat(run: Run, pilots: Client) -> None:
    ran = run("cluster", "drain", "toy-1")
    assert (ran.code, ran.err) == (0, "pilot toy-1 is draining\n")
    assert states(pilots) == [PilotState.DRAINING, PilotState.REQUESTED]
    (worker,) = pilots.queue.workers()
    assert pilots.queue.heartbeat(worker.id, 60.0, {}).drain


def test_killed_pilots_give_back_what_they_held(run: Run, pilots: Client) -> None:
    assert run("cluster", "kill", "--model", "toy").code == 0
    assert states(pilots) == [PilotState.ENDED, PilotState.ENDED]
    assert pilots.queue.backlog()["toy"].shards == 4
    assert {shard.deaths for shard in pilots.queue.shards(1)} == {0}
    assert json.loads(run("cluster", "pilots", "-o", "json").out) == []
    reasons = [row["reason"] for row in json.loads(run("cluster", "pilots", "--all", "-o", "json").out)]
    assert reasons == ["killed by ada", "killed by ada"]


def test_who_names_no_pilot_or_a_wrong_one_is_told(run: Run, pilots: Client) -> None:
    none, wrong = run("cluster", "drain"), run("cluster", "kill", "toy-11")
    assert (none.code, wrong.code) == (2, 3)
    assert "give names, --model or --all" in none.err
    assert "no pilot 'toy-11' is active" in wrong.err
    assert "toy-1" in wrong.err
    assert states(pilots) == [PilotState.RUNNING, PilotState.REQUESTED]


def test_a_pause_stops_leases_until_it_is_over(run: Run, pilots: Client) -> None:
    assert run("cluster", "pause").err == "everything is paused\n"
    (worker,) = pilots.queue.workers()
    assert pilots.queue.lease(worker.id, "toy", 9, 60.0) == []
    assert json.loads(run("cluster", "status", "-o", "json").out)[0]["paused"]
    assert run("cluster", "resume").err == "everything goes on\n"
    assert len(pilots.queue.lease(worker.id, "toy", 9, 60.0)) == 1


def test_a_pause_may_be_of_one_model(run: Run, pilots: Client) -> None:
    run("cluster", "pause", "--model", "toy")
    assert json.loads(run("cluster", "status", "-o", "json").out)[0]["paused"]
    run("cluster", "resume", "--model", "toy")
    assert not json.loads(run("cluster", "status", "-o", "json").out)[0]["paused"]


def test_one_round_of_the_scheduler_says_what_it_did(run: Run, client: Client) -> None:
    assert run("scheduler", "run", "--once").err == "nothing to do\n"
    client.queue.acquire_leader("scheduler", "another", 60.0)
    assert run("scheduler", "run", "--once").err == "another scheduler leads\n"


def test_the_folder_of_pilots_is_the_users_alone(run: Run, client: Client, settled: Path) -> None:
    run("scheduler", "run", "--once")
    assert os.stat(settled / "pilots").st_mode & 0o077 == 0
