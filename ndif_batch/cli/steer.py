"""The verbs that change jobs: cancel, hold, release, retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import say
from ndif_batch.cli.report import say_error
from ndif_batch.errors import NdifBatchError, UnavailableError

if TYPE_CHECKING:
    from ndif_batch.client import JobHandle

Jobs: TypeAlias = Annotated[list[int], typer.Argument(metavar="JOB...", help="Job numbers.")]


def cancel(jobs: Jobs) -> None:
    """End jobs now; what they saved stays readable."""
    _each(jobs, lambda job: job.cancel())


def hold(jobs: Jobs) -> None:
    """Let no worker take more of jobs until they are released."""
    _each(jobs, lambda job: job.hold())


def release(jobs: Jobs) -> None:
    """Let held jobs go on."""
    _each(jobs, lambda job: job.release())


def retry(jobs: Jobs) -> None:
    """Run again what failed."""
    _each(jobs, lambda job: job.retry())


def _each(jobs: list[int], change: Callable[[JobHandle], JobHandle]) -> None:
    """Change every job that can be; the exit code is that of the last refusal."""
    from ndif_batch.client import Client

    refused = 0
    with Client() as client:
        for number in jobs:
            try:
                job = change(client.job(number))
                say(f"job {number} is {job.state.value}")
            except UnavailableError:
                raise
            except NdifBatchError as error:
                say_error(error.message, error.hint)
                refused = error.exit_code
    if refused:
        raise typer.Exit(refused)
