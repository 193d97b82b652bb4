"""The verbs about pilots: cluster status, pilots, drain, kill, pause, resume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ndif_batch.cli.output import Format, Output, say, write_rows
from ndif_batch.cli.watching import watched
from ndif_batch.errors import NotFoundError, UsageError, nearest
from ndif_batch.measures import age, size
from ndif_batch.queue.reasons import pilots_say

if TYPE_CHECKING:
    from ndif_batch.config import Settings
    from ndif_batch.queue.api import ClientQueue
    from ndif_batch.queue.cluster import PilotRecord
    from ndif_batch.queue.records import WorkerRecord

app = typer.Typer(help="Pilots: the cluster's jobs that hold a model and carry out tasks.", no_args_is_help=True)

STATUS = ("model", "pilots", "waiting", "tasks", "tokens", "tokens/s", "oldest", "paused", "reason")
PILOTS = ("pilot", "model", "state", "id", "host", "age", "memory", "busy", "reason")

Names: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="[PILOT]...", help="Names of pilots.")]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Every pilot.")]
Model: TypeAlias = Annotated[str | None, typer.Option("--model", "-m", help="Every pilot of this model.")]


@app.command()
@watched
def status(output: Output = Format.TABLE) -> None:
    """Show what waits for each model, and the pilots that there are for it."""
    with _opened() as (_, queue):
        backlog, settings = queue.backlog(), queue.settings()
        recent = queue.newest_pilots(list(backlog), 1)
        pilots: dict[str, Counter[str]] = {}
        for pilot in (one for one in recent if not one.state.final):
            pilots.setdefault(pilot.model, Counter())[pilot.state.value.lower()] += 1
        rows: list[dict[str, Any]] = []
        for model in sorted({*backlog, *pilots}):
            waits = backlog.get(model)
            rows.append(
                {
                    "model": model,
                    "pilots": dict(pilots.get(model, {})) if output is not Format.TABLE else _counts(pilots.get(model)),
                    "waiting": waits.shards if waits else 0,
                    "tasks": waits.tasks if waits else 0,
                    "tokens": sum(waits.tokens.values()) if waits else 0,
                    "tokens/s": waits.tokens_per_second if waits else None,
                    "oldest": f"{waits.oldest_seconds:.0f}s" if waits else None,
                    "paused": bool(settings.get("pause") or settings.get(f"pause:{model}")),
                    "reason": pilots_say(recent, model) if waits else "",
                }
            )
    write_rows(rows, STATUS, output)


@app.command()
@watched
def pilots(
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List pilots, the oldest first."""
    with _opened() as (_, queue):
        listed = queue.pilots(active=not every)
        inside = {pilot.worker_id for pilot in listed if pilot.worker_id is not None}
        workers = {worker.id: worker for worker in queue.workers(sorted(inside))}
        rows = [_row(pilot, workers.get(pilot.worker_id or 0), output) for pilot in listed]
    write_rows(rows, PILOTS, output)


@app.command()
def drain(names: Names = None, model: Model = None, every: All = False) -> None:
    """Let pilots end in good order: they finish their pass and give the rest back."""
    from ndif_batch.scheduler import orders

    _order(names, model, every, orders.drain, "draining")


@app.command()
def kill(names: Names = None, model: Model = None, every: All = False) -> None:
    """End pilots at once; what they held goes back to the queue."""
    from ndif_batch.scheduler import orders

    _order(names, model, every, orders.kill, "killed")


@app.command()
def pause(model: Annotated[str | None, typer.Option("--model", "-m", help="This model only.")] = None) -> None:
    """Start no pilots and lease nothing more; what is leased goes on."""
    with _opened() as (settings, queue):
        queue.pause(model, actor=settings.user)
    say(f"{model or 'everything'} is paused")


@app.command()
def resume(model: Annotated[str | None, typer.Option("--model", "-m", help="This model only.")] = None) -> None:
    """End a pause."""
    with _opened() as (settings, queue):
        queue.resume(model, actor=settings.user)
    say(f"{model or 'everything'} goes on")


@contextmanager
def _opened() -> Iterator[tuple[Settings, ClientQueue]]:
    from ndif_batch.client import Client

    with Client() as client:
        yield client.settings, client.service


def _order(names: Sequence[str] | None, model: str | None, every: bool, order: Callable[..., None], done: str) -> None:
    from ndif_batch.client import Client
    from ndif_batch.launcher import open_launcher
    from ndif_batch.scheduler import orders

    with Client() as client:
        settings = client.settings
        for pilot in _chosen(client.service.pilots(), names or (), model, every):
            if settings.url:
                (client.server.drain_pilot if order is orders.drain else client.server.kill_pilot)(pilot.name)
            else:
                launcher = open_launcher(settings.cluster.launcher, settings.pilots, settings.cluster.gpus)
                order(client.queue, launcher, pilot, actor=settings.user, reason=f"{done} by {settings.user}")
            say(f"pilot {pilot.name} is {done}")


def _chosen(
    active: Sequence[PilotRecord], names: Sequence[str], model: str | None, every: bool
) -> Sequence[PilotRecord]:
    if not names and model is None and not every:
        raise UsageError("no pilot was named", hint="give names, --model or --all")
    known = {pilot.name for pilot in active}
    for name in names:
        if name not in known:
            raise NotFoundError(f"no pilot {name!r} is active", hint=nearest(name, sorted(known)))
    return [pilot for pilot in active if every or pilot.name in names or pilot.model == model]


def _row(pilot: PilotRecord, worker: WorkerRecord | None, output: Format) -> dict[str, Any]:
    shown = output is Format.TABLE
    used, busy = (worker.memory_used, worker.utilization) if worker else (None, None)
    return {
        "pilot": pilot.name,
        "model": pilot.model,
        "state": pilot.state.value,
        "id": pilot.external_id,
        "host": worker.host if worker else None,
        "age": age(pilot.requested_at) if shown else pilot.requested_at,
        "memory": size(used) if shown and used is not None else used,
        "busy": f"{busy:.0%}" if shown and busy is not None else busy,
        "reason": pilot.reason,
        "launcher": pilot.launcher,
        "resources": pilot.resources,
        "worker": pilot.worker_id,
    }


def _counts(states: Counter[str] | None) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted((states or {}).items()))
