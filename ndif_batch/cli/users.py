"""The verbs about users: user create, ls, set, revoke."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, TypeAlias

import typer

from ndif_batch.cli.output import Format, Key, Output, say, write_rows
from ndif_batch.cli.watching import watched
from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.queue.cluster import Role

app = typer.Typer(help="Users: their role, shares and limits.", no_args_is_help=True)

COLUMNS = ("user", "role", "shares", "pending-tasks", "running-shards", "archive-bytes", "running", "gpu-hours")
NO_LIMIT = "none"

RoleOption: TypeAlias = Annotated[
    Role,
    typer.Option(
        "--role",
        help="user: own jobs. reader: look at everything. worker: carry out jobs. admin: everything.",
    ),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="USER", help="The user's name.")],
    role: RoleOption = Role.USER,
    key: Key = None,
) -> None:
    """Make a user. `ndif-batch token create` gives them a token."""
    from ndif_batch.client import Client

    with Client() as client:
        client.keyed(key).create_user(name, role, actor=client.settings.user)
    say(f"user {name} is made; a token for them: ndif-batch token create {name}")


@app.command()
@watched
def ls(output: Output = Format.TABLE) -> None:
    """List users with their shares, limits (empty is none), the shards that they run now and what they have used."""
    from ndif_batch.client import Client

    with Client() as client:
        users, running = client.service.users(), client.service.running_shards()
        hours = dict.fromkeys((user.name for user in users), 0.0)
        for row in client.service.usage_of():
            hours[row.user] += row.cost.gpu_seconds / 3600
    rows = [
        {
            "user": user.name,
            "role": user.role.value,
            "shares": user.shares,
            "pending-tasks": user.quotas.pending_tasks,
            "running-shards": user.quotas.running_shards,
            "archive-bytes": user.quotas.archive_bytes,
            "running": running.get(user.name, 0),
            "gpu-hours": hours[user.name],
        }
        for user in users
    ]
    write_rows(rows, COLUMNS, output)


@app.command("set")
def change(
    name: Annotated[str, typer.Argument(metavar="USER", help="The user's name.")],
    role: Annotated[Role | None, typer.Option("--role", help="What the user may do.")] = None,
    shares: Annotated[
        float | None, typer.Option("--shares", help="Part of the cluster when all want it; who has 2 gets twice of 1.")
    ] = None,
    pending_tasks: Annotated[
        str | None, typer.Option("--pending-tasks", metavar="N", help="The most tasks that wait; none is no limit.")
    ] = None,
    running_shards: Annotated[
        str | None, typer.Option("--running-shards", metavar="N", help="The most shards that run; none is no limit.")
    ] = None,
    archive_bytes: Annotated[
        str | None, typer.Option("--archive-bytes", metavar="N", help="The most bytes of results; none is no limit.")
    ] = None,
) -> None:
    """Change the role, shares and limits of a user; what is not given stays. A user who is not there yet is made."""
    from ndif_batch.client import Client
    from ndif_batch.queue.cluster import Quotas

    given = {"pending_tasks": pending_tasks, "running_shards": running_shards, "archive_bytes": archive_bytes}
    limits = {quota: _limit(quota, text) for quota, text in given.items() if text is not None}
    if role is None and shares is None and not limits:
        raise UsageError("nothing to change", hint="give --role, --shares or a limit")
    with Client() as client:
        queue, actor = client.service, client.settings.user
        if limits:
            try:
                before = queue.user(name).quotas
            except NotFoundError:
                before = Quotas()
            queue.set_quotas(name, replace(before, **limits), actor=actor)
        if shares is not None:
            queue.set_shares(name, shares, actor=actor)
        if role is not None:
            queue.set_role(name, role, actor=actor)
    say(f"user {name} is changed")


@app.command()
def revoke(name: Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]) -> None:
    """Revoke every token of a user. Their jobs stay."""
    from ndif_batch.client import Client

    with Client() as client:
        client.service.user(name)
        valid = [token for token in client.service.tokens(name) if token.revoked_at is None]
        for token in valid:
            client.service.revoke_token(token.id, actor=client.settings.user)
    say(f"{len(valid)} tokens of {name} are revoked")


def _limit(quota: str, text: str) -> int | None:
    if text == NO_LIMIT:
        return None
    try:
        return int(text)
    except ValueError:
        option = quota.replace("_", "-")
        raise UsageError(f"--{option} is a whole number and cannot be {text!r}", hint=f"or {NO_LIMIT}") from None
