"""The verbs that look at jobs: ls, show, explain, logs, watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndif_batch.archive.verified import in_words
from ndif_batch.cli.follow import describe_task, follow
from ndif_batch.cli.output import Format, Output, say, stdout, write_record, write_rows, write_table
from ndif_batch.cli.watching import watched
from ndif_batch.measures import age
from ndif_batch.queue.reasons import SHORT, Standing, explained, pilots_say, waiting_reason
from ndif_batch.queue.records import EventRecord, JobRecord, JobState, TaskFailure

if TYPE_CHECKING:
    from ndif_batch.client import Client
    from ndif_batch.sweep.space import Space

COLUMNS = ("jobid", "name", "user", "model", "st", "tasks", "done", "age", "reason")
LONGEST_STORY = 10_000

JobArgument = Annotated[int, typer.Argument(metavar="JOB", help="The job's number.")]
UserOption = Annotated[str | None, typer.Option("--user", "-u", help="Only this user's jobs.")]
StateOption = Annotated[JobState | None, typer.Option("--state", "-t", case_sensitive=False, help="Only such jobs.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest first.")]


@watched
def ls(
    user: UserOption = None, state: StateOption = None, limit: LimitOption = 100, output: Output = Format.TABLE
) -> None:
    """List jobs, the newest first."""
    from ndif_batch.client import Client

    with Client() as client:
        records = [job.record for job in client.jobs(user, state, limit)]
        standing = Standing.of(client.service)
    if output is Format.TABLE:
        write_table(_lines(records, standing), COLUMNS)
    else:
        rows = [job_data(record, standing) for record in records]
        write_rows(rows, list(rows[0]) if rows else COLUMNS, output)


def show(job: JobArgument, output: Output = Format.TABLE) -> None:
    """Show one job: its state, parameter space, saved arrays and shards."""
    from ndif_batch.client import Client

    with Client() as client:
        record = client.job(job).record
        shards = client.service.shards(job)
        verified = client.service.verified(job)
        data = job_data(record, Standing.of(client.service))
    space = _space(record)
    axes = {axis.name: len(axis) for axis in space.axes}
    skipped = space.excluded()
    states = Counter(shard.state.value for shard in shards)
    more = {
        "axes": ", ".join(f"{name} ({length})" for name, length in axes.items()) if output is Format.TABLE else axes,
        "constants": record.space["constants"],
        **({} if skipped is None else {"excluded_points": int(skipped.sum())}),
        "arrays": [array["name"] for array in record.arrays],
        "shards": ", ".join(f"{count} {state}" for state, count in states.items())
        if output is Format.TABLE
        else states,
        "verified": in_words(verified) if output is Format.TABLE else verified.to_json(),
        "seed": record.seed,
        "max_retries": record.max_retries,
        "retention_days": record.retention_days,
        "expires_at": _iso(record.expires_at),
        "removed_at": _iso(record.removed_at),
        "resources": record.options.get("resources", {}),
        "graph": record.graph_digest,
        "archive": str(record.store),
    }
    write_record({**data, **more}, output)


def explain(job: JobArgument) -> None:
    """Say why a job is where it is, and tell its story."""
    from ndif_batch.client import Client

    with Client() as client:
        handle = client.job(job)
        record = handle.record
        standing = Standing.of(client.service)
        why = explained(waiting_reason(record, standing, client.service.shards(job)), record, standing)
        events = handle.events(LONGEST_STORY)
        pilots = pilots_say(client.service.newest_pilots([record.model], 1), record.model)
        served = record.state.final or standing.serves(record.model)
    headline = f"job {job} ({record.name}) is {record.state.value}"
    console = stdout()
    console.print(f"{headline}: {why}" if why else headline, markup=False, soft_wrap=True)
    if pilots and not served:
        console.print(pilots, markup=False, soft_wrap=True)
    write_table([_told(event) for event in events], ("when", "what", "who", "detail"))


@watched
def logs(job: JobArgument, limit: LimitOption = 100, output: Output = Format.TABLE) -> None:
    """List the tasks of a job that failed and why."""
    from ndif_batch.client import Client

    with Client() as client:
        handle = client.job(job)
        failures = handle.failures(limit)
    rows = [_failure_row(handle.record, failure) for failure in failures]
    write_rows(rows, ("task", "code", "node", "message"), output)
    if not rows:
        say(f"no task of job {job} has failed")


def watch(
    job: Annotated[int | None, typer.Argument(metavar="[JOB]", help="One job; without it the whole queue.")] = None,
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Follow one job with a progress bar, or the queue until interrupted."""
    from ndif_batch.client import Client

    with Client() as client:
        if job is not None:
            follow(client, [client.job(job)])
        else:
            _watch_queue(client, interval)


def _watch_queue(client: Client, interval: float) -> None:
    from threading import Event

    from rich.live import Live

    from ndif_batch.cli.output import table

    never = Event()
    with Live(console=stdout(), screen=stdout().is_terminal, auto_refresh=False) as live:
        while True:
            records = [job.record for job in client.jobs(limit=stdout().height - 2 if stdout().is_terminal else 20)]
            live.update(table(_lines(records, Standing.of(client.service)), COLUMNS), refresh=True)
            never.wait(interval)


def job_data(record: JobRecord, standing: Standing) -> dict[str, Any]:
    """A job as JSON and CSV have it."""
    return {
        "id": record.id,
        "name": record.name,
        "user": record.user,
        "model": record.model,
        "state": record.state.value,
        "tasks": record.tasks,
        "done": record.tasks_done,
        "failed": record.tasks_failed,
        "priority": record.priority,
        "submitted_at": _iso(record.submitted_at),
        "started_at": _iso(record.started_at),
        "finished_at": _iso(record.finished_at),
        "reason": waiting_reason(record, standing),
    }


def _lines(records: Sequence[JobRecord], standing: Standing) -> list[list[str]]:
    return [
        [
            str(record.id),
            record.name,
            record.user,
            record.model,
            SHORT[record.state],
            str(record.tasks),
            str(record.tasks_done),
            age(record.submitted_at),
            waiting_reason(record, standing),
        ]
        for record in records
    ]


def _failure_row(record: JobRecord, failure: TaskFailure) -> dict[str, Any]:
    return {
        "task": describe_task(record, failure.task).removeprefix("task "),
        "code": failure.code,
        "node": failure.node,
        "message": failure.message,
    }


def _told(event: EventRecord) -> tuple[str, str, str, str]:
    detail = ", ".join(f"{key} {value}" for key, value in event.detail.items())
    who = event.actor if event.worker_id is None else f"worker {event.worker_id}"
    return (event.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"), event.kind.value, who, detail)


def _space(record: JobRecord) -> Space:
    from ndif_batch.sweep.space import Space

    return Space.from_json(record.space)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
