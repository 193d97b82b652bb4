"""The verbs about tokens: token create, ls, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import Format, Key, Output, say, write_rows, write_text
from ndif_batch.cli.watching import watched
from ndif_batch.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from ndif_batch.queue.access import Scope, TokenRecord

app = typer.Typer(help="Tokens: what opens a server to a user.", no_args_is_help=True)

COLUMNS = ("id", "user", "name", "scopes", "created", "expires", "revoked")
NEVER = "never"
DAYS = 365
"""How long a token is good for unless told."""

User: TypeAlias = Annotated[str, typer.Argument(metavar="USER", help="Whose token.")]


@app.command()
def create(
    user: User,
    name: Annotated[str, typer.Option("--name", help="What it is for.")] = "",
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="read, write, work or admin; else all of the user's role."),
    ] = None,
    days: Annotated[str, typer.Option("--days", metavar="N|never", help="When it expires.")] = str(DAYS),
    key: Key = None,
) -> None:
    """Make a token and print it; it is not kept and cannot be shown again."""
    from ndif_batch.client import Client

    wanted = None if scopes is None else [_scope(scope) for scope in scopes]
    lasts = _days(days)
    with Client() as client:
        made = client.keyed(key).create_token(user, name, wanted, lasts, actor=client.settings.user)
    number = made.record.id
    if not made.text:
        raise ConflictError(
            f"token {number} was made under this key before, and is not kept",
            hint=f"if it is lost: ndif-batch token revoke {number}, then make another",
        )
    write_text(made.text)
    say(f"token {number} of {user} opens {', '.join(made.record.scopes)}; it is not kept, so keep it yourself")


@app.command()
@watched
def ls(
    user: Annotated[str | None, typer.Option("--user", "-u", help="Only this user's.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List tokens, without what they open a server with."""
    from ndif_batch.client import Client

    with Client() as client:
        rows = [_row(token) for token in client.service.tokens(user)]
    write_rows(rows, COLUMNS, output)


@app.command()
def revoke(
    tokens: Annotated[list[int], typer.Argument(metavar="TOKEN...", help="Numbers of tokens, as `token ls` has them.")],
) -> None:
    """Let tokens open nothing any more."""
    from ndif_batch.client import Client

    with Client() as client:
        for token in tokens:
            client.service.revoke_token(token, actor=client.settings.user)
            say(f"token {token} is revoked")


def _row(token: TokenRecord) -> dict[str, object]:
    times = {"created": token.created_at, "expires": token.expires_at, "revoked": token.revoked_at}
    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "scopes": ",".join(token.scopes),
        **{what: None if at is None else at.isoformat(timespec="seconds") for what, at in times.items()},
    }


def _scope(text: str) -> Scope:
    from ndif_batch.errors import nearest
    from ndif_batch.queue.access import Scope

    try:
        return Scope(text)
    except ValueError:
        raise UsageError(f"there is no scope {text!r}", hint=nearest(text, map(str, Scope))) from None


def _days(text: str) -> float | None:
    if text == NEVER:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--days is a number and cannot be {text!r}", hint=f"or {NEVER}") from None
