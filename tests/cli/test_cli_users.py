"""Shares and limits of users are set and shown."""

from __future__ import annotations

import json

import pytest

from ndif_batch.client import Client
from ndif_batch.queue.cluster import Quotas
from tests.cli.conftest import Run
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


def test_what_is_set_is_shown_and_what_is_not_given_stays(run: Run, client: Client) -> None:
    assert run("user", "set", "bob", "--pending-tasks", 100, "--archive-bytes", "1_000").err == "user bob is changed\n"
    assert run("user", "set", "bob", "--shares", 2.5, "--running-shards", 4).code == 0
    assert run("user", "set", "bob", "--pending-tasks", "none").code == 0
    assert run("user", "set", "bob", "--role", "reader").code == 0
    user = client.queue.user("bob")
    assert (user.shares, user.quotas) == (2.5, Quotas(None, 4, 1000))
    (row,) = json.loads(run("user", "ls", "-o", "json").out)
    assert row == {
        "user": "bob",
        "role": "reader",
        "shares": 2.5,
        "pending-tasks": None,
        "running-shards": 4,
        "archive-bytes": 1000,
        "running": 0,
        "gpu-hours": 0.0,
    }
    assert run("user", "ls").out.split()[:3] == ["USER", "ROLE", "SHARES"]


def test_what_a_user_runs_and_has_used_is_listed(run: Run, client: Client) -> None:
    submit(client)
    with working(client, ToyEngine()) as here:
        here.run()
        submit(client)
        client.queue.lease(here.id, "toy", 10**6, 60.0)
        (row,) = json.loads(run("user", "ls", "-o", "json").out)
    assert (row["user"], row["running"], row["gpu-hours"] > 0) == ("ada", 4, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to change"),
        (("--pending-tasks", "many"), "--pending-tasks is a whole number and cannot be 'many'"),
        (("--archive-bytes", "-1"), "archive_bytes: a quota is not negative"),
        (("--shares", "0"), "a user's shares are a positive number"),
    ],
)
def test_a_wrong_limit_is_refused_and_changes_nothing(
    run: Run, client: Client, options: tuple[str, ...], message: str
) -> None:
    ran = run("user", "set", "bob", *options)
    assert (ran.code, message in ran.err) == (2, True)
    assert client.queue.users() == [] or client.queue.user("bob").quotas == Quotas()
