"""The verb worker run."""

from __future__ import annotations

from typing import Annotated

import typer

from ndif_batch.cli.output import say

app = typer.Typer(help="Processes that hold a model and carry out jobs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `run` a verb of its own while it is the only one."""


@app.command()
def run(
    model: Annotated[str, typer.Option("--model", "-m", help="The model to load.")],
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when no job of the model is left.")] = False,
    idle_seconds: Annotated[
        float | None, typer.Option("--idle-seconds", min=0, help="End after so long without work.")
    ] = None,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="End when standard input does: with the process that holds the pipe.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End after one round of work.")] = False,
    walltime: Annotated[
        float | None, typer.Option("--walltime", min=1, help="End in good order before so many seconds have passed.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, … or auto.")] = "auto",
) -> None:
    """Load a model and carry out the tasks of its jobs until told to end (SIGTERM, SIGINT, SIGUSR2)."""
    from ndif_batch import worker
    from ndif_batch.config import load_settings

    done = worker.run(
        load_settings(),
        model,
        until_idle=until_idle,
        idle_seconds=idle_seconds,
        until_eof=until_eof,
        once=once,
        device=device,
        walltime_seconds=walltime,
    )
    say(f"{done.tasks_done} tasks done, {done.tasks_failed} of them failed, {done.tasks_reused} re-used")
    if done.busy is not None:
        say(f"the engine ran {done.busy:.0%} of the time in which there was work")
