"""Follows jobs to their end with a progress bar on stderr, and says what failed."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from ndif_batch.archive.verified import in_words
from ndif_batch.cli.output import printable, say, stderr
from ndif_batch.errors import TimedOutError

if TYPE_CHECKING:
    from rich.progress import Progress

    from ndif_batch.client import Client, JobHandle
    from ndif_batch.queue.records import JobRecord
    from ndif_batch.sweep.space import Space

SHOWN_FAILURES = 3
LONGEST_VALUE = 40
JOB_FAILED = 1


def wait(
    jobs: Annotated[list[int], typer.Argument(metavar="JOB...", help="Job numbers.")],
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Give up after so many seconds.")] = None,
) -> None:
    """Wait until jobs have ended; exit code 1 if one of them failed or was cancelled, 5 after the timeout."""
    from ndif_batch.client import Client

    with Client() as client:
        follow(client, [client.job(job) for job in jobs], timeout)


def follow(
    client: Client,
    jobs: Sequence[JobHandle],
    timeout: float | None = None,
    *,
    own_worker: bool = False,
) -> None:
    """Return when all ``jobs`` are completed; exit with 1 if one is not, ``TimedOutError`` after ``timeout`` seconds.

    Unless the caller has started its ``own_worker``, a model without one is told.
    """
    if not own_worker:
        _hint_at_workers(client, jobs)
    deadline = None if timeout is None else monotonic() + timeout
    for job in jobs:
        _follow_one(job, None if deadline is None else max(0.0, deadline - monotonic()), timeout)
    if any(told_failures(job) for job in jobs):
        raise typer.Exit(JOB_FAILED)


def _follow_one(job: JobHandle, left: float | None, timeout: float | None) -> None:
    with _bar() as bar:
        line = bar.add_task(printable(f"{job.record.name} ({job.id})"), total=job.record.tasks, state=job.state.value)

        def look(record: JobRecord) -> None:
            bar.update(line, completed=record.tasks_done, state=record.state.value)

        try:
            job.wait(left, on_look=look)
        except TimedOutError as error:
            raise TimedOutError(f"job {job.id} is still {job.state} after {timeout:g} s", hint=error.hint) from None


def _hint_at_workers(client: Client, jobs: Sequence[JobHandle]) -> None:
    from ndif_batch.queue.reasons import alive

    workers = client.service.workers()
    for model in sorted({job.record.model for job in jobs if not job.state.final}):
        if not any(alive(worker, model) for worker in workers):
            say(f"no worker has model {model} yet: a scheduler starts one, or `ndif-batch worker run --model {model}`")


def told_failures(job: JobHandle) -> bool:
    """Whether a job ended otherwise than completed; says why on stderr."""
    from ndif_batch.queue.records import JobState

    record = job.record
    verified = job.verified()
    if verified.deviating:
        say(f"job {job.id}: {in_words(verified)}")
    if record.state is JobState.COMPLETED:
        return False
    say(f"job {job.id} {record.state.value}: {record.reason or 'no reason is known'}")
    failures = job.failures(SHOWN_FAILURES)
    for failure in failures:
        say(f"  {describe_task(record, failure.task)}: {failure.message}")
    if record.tasks_failed > len(failures) > 0:
        say(f"  and {record.tasks_failed - len(failures)} more: ndif-batch logs {job.id}")
    return True


def describe_task(record: JobRecord, task: int) -> str:
    """A task and what it binds along the axes: ``task 12 (layer=0, position=12)``."""
    from ndif_batch.sweep.space import Space

    point = describe_point(Space.from_json(record.space), task)
    return f"task {task} ({point})" if point else f"task {task}"


def describe_point(space: Space, task: int) -> str:
    """What a task binds along the axes: ``layer=0, position=12``."""
    bindings = space.bindings(task)
    return ", ".join(f"{name}={shorten(repr(bindings[name]))}" for axis in space.axes for name in axis.columns)


def shorten(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as Line
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Line) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.0f}/s", style="progress.data.speed")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        console=stderr(),
    )
