"""The verbs that change jobs: cancel, hold, release, retry, priority."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import say
from ndif_batch.cli.report import say_error
from ndif_batch.errors import NdifBatchError, UnavailableError, UsageError

if TYPE_CHECKING:
    from ndif_batch.client import JobHandle

Jobs: TypeAlias = Annotated[list[int], typer.Argument(metavar="JOB...", help="Job numbers.")]


def cancel(jobs: Jobs) -> None:
    """End jobs now; what they saved stays readable."""
    each(jobs, lambda job: _now(job.cancel()))


def hold(jobs: Jobs) -> None:
    """Let no worker take more of jobs until they are released."""
    each(jobs, lambda job: _now(job.hold()))


def release(jobs: Jobs) -> None:
    """Let held jobs go on."""
    each(jobs, lambda job: _now(job.release()))


def retry(jobs: Jobs) -> None:
    """Run again what failed."""
    each(jobs, lambda job: _now(job.retry()))


def priority(
    jobs: Jobs,
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="low, normal, high, or a whole number.")],
) -> None:
    """Let jobs go before those of lower priority; one above normal is an administrator's to give."""
    from ndif_batch.sweep.resources import PRIORITIES

    try:
        number = PRIORITIES[level] if level in PRIORITIES else int(level)
    except ValueError:
        raise UsageError(f"{level!r} is no priority", hint=f"{', '.join(PRIORITIES)} or a whole number") from None
    each(jobs, lambda job: f"job {job.id} has the priority {job.set_priority(number).record.priority}")


def _now(job: JobHandle) -> str:
    return f"job {job.id} is {job.state.value}"


def each(jobs: list[int], change: Callable[[JobHandle], str]) -> None:
    """Change every job that can be and say what ``change`` tells; the exit code is that of the last refusal."""
    from ndif_batch.client import Client

    refused = 0
    with Client() as client:
        for number in jobs:
            try:
                say(change(client.job(number)))
            except UnavailableError:
                raise
            except NdifBatchError as error:
                say_error(error.message, error.hint)
                refused = error.exit_code
    if refused:
        raise typer.Exit(refused)
