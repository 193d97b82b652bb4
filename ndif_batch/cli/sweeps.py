"""The verbs sweep plan, sweep run and sweep resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ndif_batch.cli.forecast import BatchTokens, in_words, passes_record, write_efforts
from ndif_batch.cli.output import Format, Output, say, write_text
from ndif_batch.cli.phases import plan_phase, planned_results, preflight, read_phases, results_of, stale
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
    follow_if,
)
from ndif_batch.errors import NotFoundError
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.sample import VERIFY_FRACTION

if TYPE_CHECKING:
    from ndif_batch.cli.phases import Planned
    from ndif_batch.client import Client, JobHandle, Plan
    from ndif_batch.config import Settings
    from ndif_batch.sweep.load import Sweep

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

    Passes, tokens, GPU-seconds and the last table are of what runs, without what is re-used. GPU-seconds follow from
    the tokens, at the speed of the model's workers of the last seven days. Each line of the last table adds one of the
    engine's means to those above it; the last line is what is done. A token block is one token in one block of the
    model; bytes are those that blocks and head make on the way. With gradients: how often they go back through a pass,
    and through how many token blocks. The layout is what the model's class promises: the one that a worker measures may
    differ.
    """
    from ndif_batch.client import Client

    with Client() as client:
        planned: list[Planned] = []
        for sweep in read_phases(config, variables or [], seed):
            if planned and output is Format.TABLE:
                write_text("")
            planned.append(plan_phase(client, sweep, planned_results(client, planned, seed)))
            _tell_plan(client, *planned[-1], seed, batch_tokens, output)


def _tell_plan(
    client: Client, sweep: Sweep, planned: Plan, seed: int, batch_tokens: int | None, output: Format
) -> None:
    from ndif_batch.client.forecast import forecast, weights_bytes
    from ndif_batch.client.reuse import Reusable

    known = all(ref.job for ref in planned.saved.values())
    reusable = client.reusable(planned, seed=seed) if known else Reusable.nothing(planned)
    passes = forecast(planned, batch_tokens or client.settings.max_batch_tokens, reusable.left)
    speed = client.service.tokens_per_second(planned.model.name)
    needs = passes_record(passes, weights_bytes(planned.model), speed)
    if output is Format.TABLE:
        needs = in_words(needs, planned.model.name)
    describe(planned, sweep.name, output, reusable, {**needs, **wishes(sweep, client.settings)})
    tell_unmet(client, sweep)
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
        options = {"hold": hold, "no_reuse": no_reuse, "verify_fraction": verify_fraction, "parsable": parsable}
        begun: dict[str | None, JobHandle] = {}
        for sweep, planned in preflight(client, config, variables or [], seed):
            sweep, planned = plan_phase(client, sweep, results_of(begun)) if begun else (sweep, planned)
            own_key = f"{key}-{sweep.phase}" if key and sweep.phase else key
            begun[sweep.phase] = submit_sweep(client, sweep, planned, seed=seed, key=own_key, **options)
        follow_if(client, list(begun.values()), wait=wait, worker=worker)


@app.command()
def resume(
    config: Config,
    variables: Variables = None,
    seed: Seed = 0,
    wait: Wait = False,
    worker: Worker = False,
    parsable: Parsable = False,
) -> None:
    """Let the newest job of a sweep go on: release it, retry what failed, or queue again what was cancelled.

    What is saved is not run again. Exit code 3 if there is no job of this sweep; one that is completed stays as it is.
    """
    from ndif_batch.client import Client

    with Client() as client:
        begun: dict[str | None, JobHandle] = {}
        for sweep, planned in preflight(client, config, variables or [], seed):
            sweep, planned = plan_phase(client, sweep, results_of(begun)) if begun else (sweep, planned)
            job = client.earlier(planned, seed=seed)
            if job is None and not begun:
                raise NotFoundError(
                    f"no job of this sweep has begun: {config}", hint=f"`ndif-batch sweep run {config}`"
                )
            if job is None or job.state is JobState.CANCELLED or stale(job, planned):
                begun[sweep.phase] = submit_sweep(client, sweep, planned, seed=seed, parsable=parsable)
                continue
            begun[sweep.phase] = job
            if job.state is JobState.HELD and not job.record.awaiting:
                job.release()
            elif job.state is JobState.FAILED:
                job.retry()
            told = f"Job {job.id} is {job.state} ({job.record.tasks_done} of {job.record.tasks} tasks done)"
            write_text(str(job.id) if parsable else told)
        follow_if(client, list(begun.values()), wait=wait, worker=worker)


def submit_sweep(client: Client, sweep: Sweep, planned: Plan, **options: Any) -> JobHandle:
    """Queue a sweep, or a phase of one, as one job, as its file asks."""
    tell_unmet(client, sweep)
    return enqueue(
        client,
        planned,
        name=sweep.name,
        priority=sweep.schedule.number,
        max_retries=sweep.schedule.max_retries,
        retention_days=sweep.retention_days,
        resources=sweep.resources.words(),
        **options,
    )


def wishes(sweep: Sweep, settings: Settings) -> dict[str, Any]:
    """What a sweep file asks of the cluster and of the archive, as the job will have it."""
    kept = settings.retention_days if sweep.retention_days is None else sweep.retention_days
    return {
        "priority": sweep.schedule.number,
        "max_retries": sweep.schedule.max_retries,
        "retention_days": kept,
        "resources": sweep.resources.words(),
    }


def tell_unmet(client: Client, sweep: Sweep) -> None:
    """Say on stderr which of the resources that a sweep asks for the workers of its model do not get."""
    unmet = client.unmet_resources(sweep.model, sweep.resources.words())
    if unmet:
        told = ", ".join(unmet)
        say(f"workers of {sweep.model} do not get what the sweep asks for: {told}. The job runs with what they get;")
        say("it is the administrator's setting cluster.resources or cluster.models, as workers belong to a model")
