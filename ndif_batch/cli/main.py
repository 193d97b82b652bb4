"""The command ``ndif-batch``: its verbs, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from ndif_batch.cli import (
    cluster,
    dashboard,
    database,
    demo,
    doctor,
    follow,
    graphs,
    init,
    jobs,
    models,
    results,
    scheduler,
    serve,
    settings,
    steer,
    submit,
    sweeps,
    tokens,
    top,
    users,
    workers,
)
from ndif_batch.cli.report import report

NAME = "ndif-batch"
URL, REASON = "NDIF_BATCH_URL", "NDIF_BATCH_REASON"
RUN, LOOK, CHANGE, PARTS = "Run", "Look", "Change", "Parts"

app = typer.Typer(
    name=NAME,
    help="Runs interpretability experiments in bulk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"{NAME} {version(NAME)}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="Ask this server: http://127.0.0.1:8080, or unix: and a socket's path.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why you do it: kept beside what you change in the log.")
    ] = None,
) -> None:
    """Runs interpretability experiments in bulk."""
    for variable, value in ((URL, url), (REASON, reason)):
        if value is not None:
            _set_until_closed(context, variable, value)


def _set_until_closed(context: typer.Context, variable: str, value: str) -> None:
    before = {variable: os.environ[variable]} if variable in os.environ else {}
    context.call_on_close(lambda: (os.environ.pop(variable, None), os.environ.update(before)))
    os.environ[variable] = value


for panel, verbs in {
    RUN: (demo.demo, submit.submit),
    LOOK: (jobs.ls, jobs.show, jobs.explain, jobs.logs, jobs.watch, follow.wait, top.top),
    CHANGE: (steer.cancel, steer.hold, steer.release, steer.retry, steer.priority),
    PARTS: (init.init, doctor.doctor, serve.serve, dashboard.dashboard),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)

for panel, name, group in (
    (RUN, "sweep", sweeps.app),
    (LOOK, "results", results.app),
    (PARTS, "graph", graphs.app),
    (PARTS, "model", models.app),
    (PARTS, "worker", workers.app),
    (PARTS, "scheduler", scheduler.app),
    (PARTS, "cluster", cluster.app),
    (PARTS, "user", users.app),
    (PARTS, "token", tokens.app),
    (PARTS, "db", database.app),
    (PARTS, "config", settings.app),
):
    app.add_typer(group, name=name, rich_help_panel=panel)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line; the exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the user gets one readable line
        return report(error)
    return code if isinstance(code, int) else 0


def run() -> None:
    """The console script."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.exit(main())


if __name__ == "__main__":
    run()
