"""The verbs sweep plan and sweep run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import Format, Output
from ndif_batch.cli.submission import Hold, Key, NoReuse, Parsable, Seed, Wait, Worker, describe, enqueue

if TYPE_CHECKING:
    from ndif_batch.client import Client, Plan

app = typer.Typer(help="Plan and run sweep files.", no_args_is_help=True)

Config: TypeAlias = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A sweep file.")]
Variables: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", "-S", metavar="NAME=VALUE", help="A variable that the file declares.")
]


@app.command()
def plan(config: Config, variables: Variables = None, seed: Seed = 0, output: Output = Format.TABLE) -> None:
    """Check a sweep and say what it will run, re-use, save and need; nothing is queued."""
    from ndif_batch.client import Client

    with Client() as client:
        name, planned = plan_sweep(client, config, variables or [])
        describe(planned, name, output, client.reusable(planned, seed=seed))


@app.command()
def run(
    config: Config,
    variables: Variables = None,
    seed: Seed = 0,
    hold: Hold = False,
    key: Key = None,
    no_reuse: NoReuse = False,
    wait: Wait = False,
    worker: Worker = False,
    parsable: Parsable = False,
) -> None:
    """Queue a sweep as one job. What an earlier job of yours has saved is not run again: its results are copied."""
    from ndif_batch.client import Client

    with Client() as client:
        name, planned = plan_sweep(client, config, variables or [])
        enqueue(
            client,
            planned,
            name=name,
            seed=seed,
            hold=hold,
            key=key,
            no_reuse=no_reuse,
            wait=wait,
            worker=worker,
            parsable=parsable,
        )


def plan_sweep(client: Client, config: Path, variables: list[str]) -> tuple[str, Plan]:
    """The name and the checked plan of a sweep file."""
    from ndif_batch.cli.experiments import load_experiment
    from ndif_batch.cli.values import variables_from
    from ndif_batch.sweep.load import load_sweep

    sweep = load_sweep(config, variables_from(variables))
    info = client.model_info(sweep.model)
    found = load_experiment(sweep.experiment, lambda: client.language_model(sweep.model))
    sweep.check(found.graph.params)
    return sweep.name, client.prepare(found.graph, sweep.space, info, constants=found.constants)
