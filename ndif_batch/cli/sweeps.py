"""The verbs sweep plan and sweep run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.forecast import BatchTokens, passes_record, write_efforts
from ndif_batch.cli.output import Format, Output
from ndif_batch.cli.submission import (
    Hold,
    Key,
    NoReuse,
    Parsable,
    Seed,
    VerifyFraction,
    Wait,
    Worker,
    describe,
    enqueue,
)
from ndif_batch.sweep.sample import VERIFY_FRACTION

if TYPE_CHECKING:
    from ndif_batch.client import Client, Plan

app = typer.Typer(help="Plan and run sweep files.", no_args_is_help=True)

Config: TypeAlias = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A sweep file.")]
Variables: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", "-S", metavar="NAME=VALUE", help="A variable that the file declares.")
]


@app.command()
def plan(
    config: Config,
    variables: Variables = None,
    seed: Seed = 0,
    batch_tokens: BatchTokens = None,
    output: Output = Format.TABLE,
) -> None:
    """Check a sweep and say what it will run, re-use, save and need, and what its passes compute; nothing is queued.

    Each line of the last table adds one of the engine's means to those above it; the last line is what is done. A
    token block is one token in one block of the model; bytes are those that blocks and head make on the way. The
    layout is what the model's class promises: the one that a worker measures may differ.
    """
    from ndif_batch.client import Client
    from ndif_batch.client.forecast import forecast

    with Client() as client:
        name, planned = plan_sweep(client, config, variables or [])
        passes = forecast(planned, batch_tokens or client.settings.max_batch_tokens)
        describe(planned, name, output, client.reusable(planned, seed=seed), passes_record(passes))
        if output is Format.TABLE:
            write_efforts(passes)


@app.command()
def run(
    config: Config,
    variables: Variables = None,
    seed: Seed = 0,
    hold: Hold = False,
    key: Key = None,
    no_reuse: NoReuse = False,
    verify_fraction: VerifyFraction = VERIFY_FRACTION,
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
            verify_fraction=verify_fraction,
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
