"""The verb top: models, workers and jobs in one picture that is drawn again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from ndif_batch.cli.output import stdout, table
from ndif_batch.measures import age, size
from ndif_batch.queue.reasons import SHORT, Standing, waiting_reason
from ndif_batch.queue.records import JobRecord, JobState, WorkerRecord, WorkerState

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from ndif_batch.queue.api import ClientQueue
    from ndif_batch.queue.cluster import ModelBacklog, PilotRecord

LIVING = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)
LOOKED_AT = 200
"""So many of the newest jobs may be shown."""

FEWEST_JOBS = 5
BAR = 10

MODELS = ("model", "pilots", "workers", "busy", "waiting", "tasks", "oldest", "tokens/s")
WORKERS = ("worker", "model", "host", "st", "busy", "memory", "gpu-s", "tokens/s", "heard")
JOBS = ("jobid", "name", "user", "model", "st", "tasks", "progress", "age", "reason")


@dataclass(frozen=True, slots=True)
class View:
    """What there is at one moment; ``at`` are seconds on this host's clock."""

    at: float
    jobs: Sequence[JobRecord]
    workers: Sequence[WorkerRecord]
    pilots: Sequence[PilotRecord]
    backlog: Mapping[str, ModelBacklog]
    standing: Standing

    @classmethod
    def of(cls, queue: ClientQueue) -> View:
        """As it is now."""
        standing = Standing.of(queue)
        living = [worker for worker in standing.workers if worker.state in LIVING]
        return cls(monotonic(), queue.jobs(limit=LOOKED_AT), living, queue.pilots(), queue.backlog(), standing)


def top(
    interval: Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Draw one picture and end.")] = False,
) -> None:
    """Show models, workers and jobs as they change, until interrupted."""
    from threading import Event

    from rich.live import Live

    from ndif_batch.client import Client

    console = stdout()
    with Client() as client:
        view = View.of(client.service)
        if once:
            console.print(frame(view, None, LOOKED_AT))
            return
        never = Event()
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            before: View | None = None
            while True:
                live.update(frame(view, before, console.height), refresh=True)
                never.wait(interval)
                before, view = view, View.of(client.service)


def frame(view: View, before: View | None, height: int) -> Group:
    """The picture in ``height`` lines, with as many jobs as there is room for; speeds are those since ``before``."""
    from rich.console import Group
    from rich.text import Text

    speeds = _speeds(view, before)
    parts: list[RenderableType] = [Text(_headline(view, speeds), style="bold"), Text()]
    models, workers = list(_models(view, speeds)), list(_workers(view, speeds))
    for rows, columns in ((models, MODELS), (workers, WORKERS)):
        if rows:
            parts += [table(rows, columns), Text()]
    room = max(FEWEST_JOBS, height - len(models) - len(workers) - 8)
    parts.append(table(list(_jobs(view))[:room], JOBS))
    return Group(*parts)


def _headline(view: View, speeds: Mapping[int, float]) -> str:
    states = Counter(job.state for job in view.jobs)
    jobs = ", ".join(f"{states[state]} {state.value.lower()}" for state in JobState if states[state])
    waiting = sum(one.tasks for one in view.backlog.values())
    speed = f", {sum(speeds.values()):,.0f} tokens/s" if speeds else ""
    paused = ", paused" if view.standing.settings.get("pause") else ""
    return f"jobs: {jobs or 'none'} · {waiting:,} tasks wait · {len(view.workers)} workers{speed}{paused}"


def _models(view: View, speeds: Mapping[int, float]) -> Iterator[list[str]]:
    names = {*view.backlog, *(one.model for one in view.workers), *(one.model for one in view.pilots)}
    for name in sorted(names):
        waits = view.backlog.get(name)
        inside = [one for one in view.workers if one.model == name]
        busy = [one.utilization for one in inside if one.utilization is not None]
        speed = [speeds[one.id] for one in inside if one.id in speeds]
        yield [
            name,
            str(sum(one.model == name for one in view.pilots)),
            str(len(inside)),
            f"{sum(busy) / len(busy):.0%}" if busy else "",
            str(waits.shards) if waits else "0",
            str(waits.tasks) if waits else "0",
            _duration(waits.oldest_seconds) if waits else "",
            f"{sum(speed):,.0f}" if speed else "",
        ]


def _workers(view: View, speeds: Mapping[int, float]) -> Iterator[list[str]]:
    for one in sorted(view.workers, key=lambda worker: (worker.model, worker.id)):
        yield [
            str(one.id),
            one.model,
            one.host,
            one.state.value,
            "" if one.utilization is None else f"{one.utilization:.0%}",
            "" if one.memory_used is None else size(one.memory_used),
            f"{one.gpu_seconds:.0f}",
            f"{speeds[one.id]:,.0f}" if one.id in speeds else "",
            age(one.heartbeat_at),
        ]


def _jobs(view: View) -> Iterator[list[str]]:
    """Those that run, then those that wait, then those that have ended; the newest of each first."""
    turn = {JobState.RUNNING: 0, JobState.PENDING: 1, JobState.HELD: 2}
    for job in sorted(view.jobs, key=lambda job: (turn.get(job.state, 3), -job.id)):
        yield [
            str(job.id),
            job.name,
            job.user,
            job.model,
            SHORT[job.state],
            str(job.tasks),
            _progress(job),
            age(job.submitted_at),
            waiting_reason(job, view.standing),
        ]


def _progress(job: JobRecord) -> str:
    ended = (job.tasks_done + job.tasks_failed) / job.tasks
    return f"{'█' * int(ended * BAR):░<{BAR}} {ended:.0%}"


def _speeds(view: View, before: View | None) -> dict[int, float]:
    """Tokens a second of each worker since the view before."""
    if before is None or view.at <= before.at:
        return {}
    earlier = {worker.id: worker.tokens for worker in before.workers}
    seconds = view.at - before.at
    return {one.id: (one.tokens - earlier[one.id]) / seconds for one in view.workers if one.id in earlier}


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
