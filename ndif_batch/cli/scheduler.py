"""The verb scheduler run."""

from __future__ import annotations

from typing import Annotated

import typer

from ndif_batch.cli.output import say

app = typer.Typer(help="The process that starts and ends pilots.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `run` a verb of its own while it is the only one."""


@app.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="One round, for cron.")] = False,
) -> None:
    """Keep as many pilots of each model as its waiting work is worth, until told to end (SIGTERM, SIGINT)."""
    from ndif_batch.config import load_settings
    from ndif_batch.scheduler.loop import run as keep

    ticked = keep(load_settings(), once=once)
    if once:
        say(_told(ticked.started, ticked.drained, ticked.ended) if ticked.leads else "another scheduler leads")


def _told(started: tuple[str, ...], drained: tuple[str, ...], ended: tuple[str, ...]) -> str:
    parts = {"started": started, "draining": drained, "ended": ended}
    told = [f"{what} {', '.join(names)}" for what, names in parts.items() if names]
    return "; ".join(told) or "nothing to do"
