"""The page that tells how the cluster is: what runs, what waits and why, what it costs whom, what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ndif_batch.queue.cluster import Cost, ModelBacklog, UsageRecord
from ndif_batch.queue.figures import JobFigures
from ndif_batch.queue.reasons import LIVE, pilots_say
from ndif_batch.queue.records import JobState, WorkerRecord, WorkerState
from ndif_batch.scheduler.tick import LEADER
from ndif_batch.server.dashboard.visit import Visit

HOURS = 48
"""How far back charts and shares of usage go."""

FAILURES = 6


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model in the overview."""

    name: str
    running: int
    waiting: ModelBacklog | None
    ready: int
    starting: int
    paused: bool
    reason: str


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue, now = visit.queue, visit.queue.queue.now()
    figures, settings, backlog = queue.job_figures(), queue.settings(), queue.backlog()
    workers = queue.live_workers()
    usage = queue.usage_of(since=now - timedelta(hours=HOURS))
    total = Cost.total(one.cost for one in usage)
    return {
        "now": now,
        "states": by_state(figures),
        "models": model_lines(visit, figures, backlog, workers, settings),
        "oldest": max((one.oldest_seconds for one in backlog.values()), default=None),
        "waiting_tasks": sum(one.tasks for one in backlog.values()),
        "workers": [worker for worker in workers if worker.state in LIVE],
        "lost": [worker for worker in workers if worker.state is WorkerState.LOST],
        "leads": leads(visit),
        "paused_all": bool(settings.get("pause")),
        "failures": queue.jobs(state=JobState.FAILED, limit=FAILURES),
        "usage": total,
        "sharing": sharing(total),
        "users": by_user(usage),
        "series": series(usage, now),
        "hours": HOURS,
    }


def leads(visit: Visit) -> str | None:
    """Which scheduler leads now; None if none does."""
    found = visit.queue.queue.leader(LEADER)
    return None if found is None else found.holder


def by_state(figures: Sequence[JobFigures]) -> dict[JobState, int]:
    """How many jobs are in each state."""
    return {state: sum(one.jobs for one in figures if one.state is state) for state in JobState}


def sharing(cost: Cost) -> float | None:
    """The co-batching factor: tokens as tasks would have run them alone, to those that went through a model."""
    ran = cost.tokens - cost.shared_tokens
    return cost.tokens / ran if ran > 0 else None


def by_user(usage: Sequence[UsageRecord]) -> list[tuple[str, Cost]]:
    """What each has used, the most first."""
    names = {one.user for one in usage}
    costs = [(name, Cost.total(one.cost for one in usage if one.user == name)) for name in names]
    return sorted(costs, key=lambda one: (-one[1].gpu_seconds, one[0]))


def series(usage: Sequence[UsageRecord], now: datetime) -> list[list[float]]:
    """For a chart: the hours as seconds, the tokens that ran in each, and those that were spared."""
    last = now.replace(minute=0, second=0, microsecond=0)
    hours = [last - timedelta(hours=back) for back in range(HOURS - 1, -1, -1)]
    ran, spared = dict.fromkeys(hours, 0), dict.fromkeys(hours, 0)
    for one in usage:
        if one.hour in ran:
            ran[one.hour] += one.cost.tokens - one.cost.shared_tokens
            spared[one.hour] += one.cost.shared_tokens
    return [[hour.timestamp() for hour in hours], [*ran.values()], [*spared.values()]]


def model_lines(
    visit: Visit,
    figures: Sequence[JobFigures],
    backlog: Mapping[str, ModelBacklog],
    workers: Sequence[WorkerRecord],
    settings: Mapping[str, Any],
) -> list[ModelLine]:
    """A line for each model with jobs that are not over, or with workers."""
    open_jobs = {one.model for one in figures if not one.state.final}
    names = sorted({*open_jobs, *backlog, *(worker.model for worker in workers if worker.state in LIVE)})
    pilots = visit.queue.newest_pilots(names, 1)
    return [
        ModelLine(
            name=name,
            running=sum(one.jobs for one in figures if one.model == name and one.state is JobState.RUNNING),
            waiting=backlog.get(name),
            ready=sum(w.model == name and w.state is WorkerState.RUNNING for w in workers),
            starting=sum(w.model == name and w.state is WorkerState.STARTING for w in workers),
            paused=bool(settings.get("pause") or settings.get(f"pause:{name}")),
            reason=pilots_say(pilots, name) if name in backlog else "",
        )
        for name in names
    ]
