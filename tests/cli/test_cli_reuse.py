"""A second submission says what it need not run; results are deleted by whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client
from ndif_batch.queue.cluster import Quotas, Role
from tests.cli.conftest import SWEEP, Run
from tests.cli.test_cli_jobs import GRID, drain, third


def test_a_plan_and_a_submission_tell_what_is_reused(run: Run, client: Client, folder: Path) -> None:
    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 1 (12 tasks)\n"
    drain(client, third)
    plan = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert (plan["tasks"], plan["reused_tasks"], plan["reused_from"]) == (12, 11, [1])
    assert "reused tasks" in run("sweep", "plan", "sweep.yaml").out
    (folder / "sweep.yaml").write_text(SWEEP.replace("layer: {range: [0, 4]}", "layer: [0, 3]"))
    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 2 (6 tasks, 6 of them re-used from job 1)\n"
    drain(client)
    assert set(client.job(2).results().status().ravel()) == {TaskStatus.REUSED}
    assert run("submit", "job.py", *GRID, "-S", "position=2").out == (
        "Submitted job 3 (4 tasks, 4 of them re-used from jobs 2, 1)\n"
    )


def test_no_reuse_runs_every_task(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client)
    assert run("sweep", "run", "sweep.yaml", "--no-reuse").out == "Submitted job 2 (12 tasks)\n"
    arguments = ("submit", "job.py", *GRID, "-S", "position=0")
    assert json.loads(run(*arguments, "--dry-run", "-o", "json").out)["reused_tasks"] == 4
    assert json.loads(run(*arguments, "--dry-run", "--no-reuse", "-o", "json").out)["reused_tasks"] == 0
    assert run(*arguments, "--no-reuse", "--parsable").out == "3\n"
    options = {"nan": "allow", "layout": "auto", "verify_fraction": 0.01}
    assert [client.job(job).record.options for job in (2, 3)] == [options] * 2


def test_removed_results_are_gone_and_their_bytes_are_free(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client)
    bytes_ = client.job(1).record.archive_bytes
    client.queue.set_quotas("ada", Quotas(archive_bytes=bytes_), actor="root")
    refused = run("sweep", "run", "sweep.yaml")
    assert (refused.code, "archive bytes" in refused.err) == (4, True)
    store = client.job(1).record.store
    removed = run("results", "rm", 1)
    assert (removed.code, removed.err.startswith("the results of job 1 are deleted")) == (0, True)
    assert list(store.parent.iterdir()) == []
    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 2 (12 tasks)\n"
    gone = run("results", "get", 1)
    assert (gone.code, "the results of job 1 were removed on" in gone.err) == (3, True)
    assert json.loads(run("results", "ls", "-o", "json").out) == []
    assert "results.removed" in run("explain", 1).out
    assert run("results", "rm", 1).code == 0


def test_results_that_may_not_go_stay(run: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    run("sweep", "run", "sweep.yaml")
    early = run("results", "rm", 1)
    assert (early.code, "its results cannot go yet" in early.err, "cancel it first" in early.err) == (2, True, True)
    drain(client)
    monkeypatch.setenv("NDIF_BATCH_USER", "bob")
    others = run("results", "rm", 1, 7)
    assert (others.code, "belongs to 'ada', not to 'bob'" in others.err) == (3, True)
    assert client.job(1).results().verify() == []
    client.queue.set_role("bob", Role.ADMIN, actor="root")
    assert run("results", "rm", 1).code == 0


def test_files_of_another_account_are_left_to_the_scheduler(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client)
    store = client.job(1).record.store

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", refuse)
        given_up = run("results", "rm", 1)
    assert (given_up.code, "the scheduler deletes them" in given_up.err, store.is_dir()) == (0, True, True)
    assert run("results", "get", 1).code == 3
    assert json.loads(run("results", "ls", "-o", "json").out) == []
    assert run("scheduler", "run", "--once").code == 0
    assert (store.exists(), client.job(1).record.archive_bytes) == (False, 0)
