"""The verbs db upgrade, db check and db backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndif_batch.cli.output import say

app = typer.Typer(help="The queue's database.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Create the database's schema or bring it up to date; what is stored stays."""
    from ndif_batch.config import load_settings
    from ndif_batch.queue import schema

    say(f"the database is at schema {schema.upgrade(load_settings().database)}")


@app.command()
def check() -> None:
    """Say whether the database can be used; exit code 6 if it cannot."""
    from ndif_batch.config import load_settings
    from ndif_batch.queue import schema

    schema.require(load_settings().database)
    say(f"the database is at schema {schema.head()}, as it should be")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not be there yet.")],
) -> None:
    """Copy the database into a file while it is in use: a SQLite file, or what `pg_restore` reads."""
    from ndif_batch.config import load_settings
    from ndif_batch.queue.backup import backup as copy

    copy(load_settings().database, file)
    say(f"the database is in {file}; results and constants are files of their own")
