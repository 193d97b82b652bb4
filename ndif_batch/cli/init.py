"""The verb init: settings, database, archive and the first administrator's token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndif_batch.cli.output import say, write_text
from ndif_batch.cli.tokens import DAYS

if TYPE_CHECKING:
    from ndif_batch.config import Settings
    from ndif_batch.queue import Queue

OURS_ALONE = 0o600


def init(
    admin: Annotated[str | None, typer.Option("--admin", help="The first administrator, else you.")] = None,
) -> None:
    """Make the settings file, the database and the archive, and print the first administrator's token.

    What is there already stays; the token is made only while no administrator has one.
    """
    from ndif_batch.config import config_file, load_settings, without_password
    from ndif_batch.queue import Queue, schema

    settings = load_settings()
    for folder in (settings.data_dir, settings.archive, settings.model_cache):
        folder.mkdir(parents=True, exist_ok=True)
    if not config_file().exists():
        _write_settings(settings, config_file())
    say(f"settings: {config_file()}")
    say(f"database: {without_password(settings.database)}, schema {schema.upgrade(settings.database)}")
    say(f"archive: {settings.archive}")
    with Queue.open(settings.database) as queue:
        text = first_token(queue, admin or settings.user)
    if text is None:
        say("an administrator has a token already; another: ndif-batch token create USER")
    else:
        write_text(text)
        say("this token opens everything on a server; it is not kept, so keep it yourself")


def first_token(queue: Queue, name: str) -> str | None:
    """A token for the administrator ``name``; None if an administrator has one."""
    from ndif_batch.queue.access import Scope
    from ndif_batch.queue.cluster import Role

    admins = {user.name for user in queue.users() if user.role is Role.ADMIN}
    held = [token for token in queue.tokens() if token.user in admins and Scope.ADMIN in token.scopes]
    if any(token.revoked_at is None for token in held):
        return None
    queue.set_role(name, Role.ADMIN, actor=name)
    return queue.create_token(name, "first", expires_days=DAYS, actor=name).text


def _write_settings(settings: Settings, file: Path) -> None:
    """The places as they are now, so that a later start from elsewhere finds them."""
    places = {"data_dir": settings.data_dir, "model_cache": settings.model_cache}
    lines = [f"{name} = {json.dumps(str(path.absolute()))}\n" for name, path in places.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(OURS_ALONE)
    file.write_text("".join(lines))
