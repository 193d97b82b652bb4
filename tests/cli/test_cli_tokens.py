"""Tokens are made, listed and revoked; their text is printed once; init makes the first administrator's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.queue import Queue
from ndif_batch.queue.access import SCOPES
from ndif_batch.queue.cluster import Role
from tests.cli.conftest import Run


def test_a_token_is_printed_once_listed_without_its_text_and_revoked(run: Run, client: Client) -> None:
    assert run("user", "create", "bob").err == "user bob is made; a token for them: ndif-batch token create bob\n"
    made = run("token", "create", "bob", "--name", "laptop", "--scope", "read", "--days", "30")
    assert (made.code, made.err.startswith("token 1 of bob opens read")) == (0, True)
    assert client.queue.authenticate(made.out.strip()).user == "bob"
    listed = run("token", "ls", "-o", "json").out
    (row,) = json.loads(listed)
    assert (row["user"], row["name"], row["scopes"], row["revoked"]) == ("bob", "laptop", "read", None)
    assert made.out.strip()[8:] not in listed
    assert run("token", "revoke", 1).err == "token 1 is revoked\n"
    assert json.loads(run("token", "ls", "-u", "bob", "-o", "json").out)[0]["revoked"] is not None


def test_all_tokens_of_a_user_are_revoked_together(run: Run, client: Client) -> None:
    run("user", "create", "bob", "--role", "worker")
    for _ in range(3):
        run("token", "create", "bob", "--days", "never")
    run("token", "revoke", 2)
    assert run("user", "revoke", "bob").err == "2 tokens of bob are revoked\n"
    assert all(token.revoked_at is not None for token in client.queue.tokens("bob"))


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("token", "create", "eve"), 3, "there is no user 'eve'"),
        (("token", "create", "bob", "--scope", "wirte"), 2, "did you mean 'write'?"),
        (("token", "create", "bob", "--scope", "admin"), 2, "a token of the user 'bob' cannot open admin"),
        (("token", "create", "bob", "--days", "soon"), 2, "--days is a number and cannot be 'soon'"),
        (("token", "revoke", "7"), 3, "there is no token 7"),
        (("user", "create", "bob"), 2, "there is a user 'bob' already"),
        (("user", "create", "../bob"), 2, "cannot name a user"),
        (("user", "revoke", "eve"), 3, "there is no user 'eve'"),
    ],
)
def test_a_wrong_token_or_user_is_refused(
    run: Run, client: Client, command: tuple[str, ...], code: int, message: str
) -> None:
    run("user", "create", "bob")
    ran = run(*command)
    assert (ran.code, ran.out, message in ran.err) == (code, "", True)
    assert client.queue.tokens() == []


def test_init_makes_all_that_is_missing_and_one_token(run: Run, settled: Path) -> None:
    first = run("init", "--admin", "root")
    assert (first.code, (settled / "archive").is_dir()) == (0, True)
    assert f'data_dir = "{settled}"' in (settled / "none.toml").read_text()
    with Queue.open(f"sqlite:///{settled / 'queue.db'}") as queue:
        caller = queue.authenticate(first.out.strip())
    assert (caller.user, caller.role, caller.scopes) == ("root", Role.ADMIN, SCOPES[Role.ADMIN])
    again = run("init")
    assert (again.code, again.out) == (0, "")
    assert "an administrator has a token already" in again.err
