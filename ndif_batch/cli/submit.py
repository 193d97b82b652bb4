"""The verb submit: a graph or a job file, with its parameters on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndif_batch.cli.output import Format, Output
from ndif_batch.cli.submission import (
    After,
    Constants,
    DryRun,
    Grid,
    Hold,
    Key,
    NoReuse,
    Parsable,
    Seed,
    VerifyFraction,
    Wait,
    Worker,
    Zipped,
    describe,
    enqueue,
    follow_if,
)
from ndif_batch.sweep.sample import VERIFY_FRACTION


def submit(
    experiment: Annotated[Path, typer.Argument(metavar="GRAPH.json|JOB.py", help="A graph, or a file with build(lm).")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name, as `model ls` shows it.")],
    constants: Constants = None,
    grid: Grid = None,
    zipped: Zipped = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the job; the file's name if not given.")] = None,
    seed: Seed = 0,
    hold: Hold = False,
    key: Key = None,
    after: After = None,
    no_reuse: NoReuse = False,
    verify_fraction: VerifyFraction = VERIFY_FRACTION,
    wait: Wait = False,
    worker: Worker = False,
    parsable: Parsable = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> None:
    """Queue an experiment over a parameter space as one job.

    Values are read by the type of their parameter: a text for a prompt, its one token for a whole number. @file.json,
    .jsonl, .csv and .yaml hold lists; a name such as clean,corrupted=@pairs.jsonl ties columns of a file. What an
    earlier job of yours has saved is not run again: its results are copied.
    """
    from ndif_batch.cli.experiments import load_experiment
    from ndif_batch.cli.values import space_from
    from ndif_batch.client import Client
    from ndif_batch.client.reuse import Reusable

    with Client() as client:
        info = client.model_info(model)
        found = load_experiment(experiment, lambda: client.language_model(model))
        space = space_from(found.graph.params, constants or (), grid or (), zipped or ())
        plan = client.prepare(found.graph, space, info, constants=found.constants)
        job_name = name or experiment.stem.replace("_", "-")
        if dry_run:
            describe(plan, job_name, output, Reusable.nothing(plan) if no_reuse else client.reusable(plan, seed=seed))
        else:
            job = enqueue(
                client,
                plan,
                name=job_name,
                seed=seed,
                hold=hold,
                key=key,
                after=after or (),
                no_reuse=no_reuse,
                verify_fraction=verify_fraction,
                parsable=parsable,
            )
            follow_if(client, [job], wait=wait, worker=worker)
