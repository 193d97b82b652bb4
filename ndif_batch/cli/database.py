"""The verbs db upgrade and db check."""

from __future__ import annotations

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
