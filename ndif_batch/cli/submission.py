"""What submit and sweep run have in common: options, the description of a plan, queueing and waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ndif_batch.cli.follow import describe_point, follow
from ndif_batch.cli.output import Format, Output, write_record, write_text
from ndif_batch.measures import size

if TYPE_CHECKING:
    from ndif_batch.client import Client, JobHandle, Plan
    from ndif_batch.client.reuse import Reusable
    from ndif_batch.graph.nodes import Value

Wait: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Wait until the job has ended; exit code 1 if it failed.")
]
Worker: TypeAlias = Annotated[bool, typer.Option("--worker", help="Also run a worker here until the job has ended.")]
Hold: TypeAlias = Annotated[bool, typer.Option("--hold", help="Queue the job on hold.")]
Key: TypeAlias = Annotated[str | None, typer.Option("--key", help="The same key gives the same job again.")]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", help="Decides every random number of the job.")]
Constants: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", "-S", metavar="NAME=VALUE", help="A parameter that never varies.")
]
Grid: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="NAME=VALUES", help="An axis: 0:30, 0,1,2 or @file.json. May be repeated."),
]
Zipped: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--zip", metavar="NAME=VALUES", help="Parameters that vary together, on one axis."),
]
After: TypeAlias = Annotated[
    list[int] | None,
    typer.Option("--after", metavar="JOB", help="Begin when this job is completed; cancelled if it fails. Repeatable."),
]
Parsable: TypeAlias = Annotated[bool, typer.Option("--parsable", help="Print the job's number only.")]
NoReuse: TypeAlias = Annotated[
    bool, typer.Option("--no-reuse", help="Run every task, also those that earlier jobs of yours have saved.")
]
VerifyFraction: TypeAlias = Annotated[
    float,
    typer.Option("--verify-fraction", min=0, max=1, help="How many of the tasks are run again alone, to compare."),
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Check and describe the job; queue nothing.")]

__all__ = [
    "After",
    "Constants",
    "DryRun",
    "Grid",
    "Hold",
    "Key",
    "NoReuse",
    "Output",
    "Parsable",
    "Seed",
    "VerifyFraction",
    "Wait",
    "Worker",
    "Zipped",
    "describe",
    "enqueue",
    "follow_if",
]


def enqueue(
    client: Client,
    plan: Plan,
    *,
    parsable: bool,
    seed: int,
    no_reuse: bool = False,
    **options: Any,
) -> JobHandle:
    """Queue a plan and print the job's number."""
    reused = "" if parsable or no_reuse else _told(client.reusable(plan, seed=seed))
    job = client.submit(plan, seed=seed, reuse=not no_reuse, **options)
    excluded = f", {plan.excluded} points excluded" if plan.excluded else ""
    told = f"Submitted job {job.id} ({plan.tasks - plan.excluded} tasks{excluded}{reused})"
    write_text(str(job.id) if parsable else told)
    return job


def follow_if(client: Client, jobs: Sequence[JobHandle], *, wait: bool, worker: bool) -> None:
    """Follow jobs of one model to their end if asked to, with a worker of their own if asked to."""
    if worker:
        with client.local_worker(jobs[0].record.model):
            follow(client, jobs, own_worker=True)
    elif wait:
        follow(client, jobs)


def describe(plan: Plan, name: str, output: Format, reused: Reusable, passes: Mapping[str, Any] | None = None) -> None:
    """Print what a plan will run, save and need, which of it earlier jobs have, and what is known of its passes."""
    space, (first, last) = plan.space, plan.ends
    table = output is Format.TABLE
    axes = {axis.name: len(axis) for axis in space.axes}
    arrays = {array.name: [*space.shape, *array.shape] for array in plan.arrays}
    arrays |= {
        one.name: [*(length for axis, length in axes.items() if axis not in one.axes), *one.shape]
        for one in plan.reduced
    }
    reduced = {one.name: f"{one.op} of {one.source.name} over {', '.join(one.over)}" for one in plan.reduced}
    record = {
        "name": name,
        "model": plan.model.name,
        "tasks": plan.tasks - plan.excluded,
        "excluded_points": plan.excluded,
        "reused_tasks": reused.tasks,
        "reused_from": list(reused.jobs),
        "axes": ", ".join(f"{axis} ({length})" for axis, length in axes.items()) if table else axes,
        "unique_prompts": plan.prompts.distinct,
        "prompt_tokens": plan.prompts.tokens,
        "arrays": ", ".join(f"{array} {shape}" for array, shape in arrays.items()) if table else arrays,
        **(
            {"reduced": "; ".join(f"{name} is the {how}" for name, how in reduced.items()) if table else reduced}
            if reduced
            else {}
        ),
        "bytes": f"{plan.bytes} ({size(plan.bytes)})" if table else plan.bytes,
        "files": plan.files,
        "tile": " × ".join(map(str, plan.tile)) if table else list(plan.tile),  # noqa: RUF001
        "shards": len(plan.shards),
        "constants": as_json(space.constants),
        "first_task": describe_point(space, first) if table else as_json(space.bindings(first)),
        "last_task": describe_point(space, last) if table else as_json(space.bindings(last)),
        **(passes or {}),
    }
    if table:
        record.pop("efforts", None)
    write_record({key.replace("_", " "): value for key, value in record.items()} if table else record, output)


def _told(reused: Reusable) -> str:
    """What earlier jobs save a new one: ``, 8 of them re-used from job 3``."""
    if not reused.tasks:
        return ""
    jobs = ", ".join(map(str, reused.jobs))
    return f", {reused.tasks} of them re-used from job{'s' if len(reused.jobs) > 1 else ''} {jobs}"


def as_json(bindings: Mapping[str, Value]) -> dict[str, Any]:
    """Bound values as JSON."""
    from ndif_batch.sweep.space import value_to_json

    return {name: value_to_json(value) for name, value in bindings.items()}
