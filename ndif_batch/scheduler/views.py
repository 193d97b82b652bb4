"""The rows of the queue as the policy of pilots sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ndif_batch.config import ClusterSettings, ModelPilots
from ndif_batch.queue.cluster import ModelBacklog, PilotRecord, PilotState
from ndif_batch.queue.records import WorkerRecord
from ndif_batch.queue.wishes import pinned, wanted_now
from ndif_batch.scheduler.reconcile import has_worked
from ndif_batch.scheduling.cluster import Backlog, Limits, PilotPhase, PilotView

PHASES = {
    PilotState.REQUESTED: PilotPhase.QUEUED,
    PilotState.QUEUED: PilotPhase.QUEUED,
    PilotState.RUNNING: PilotPhase.RUNNING,
    PilotState.DRAINING: PilotPhase.DRAINING,
}
FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=15), timedelta(minutes=15)
NOTHING = ModelBacklog({}, 0, 0, 0.0, 0.0, None, None)
LONGER = 2.0
"""A pilot gets time for a load of so many times what the one before it lived, if that failed and had done nothing."""
RECENT_ENDS = 8
"""How many ended pilots of a model tell whether its pilots can start at all."""


def limits(cluster: ClusterSettings) -> Limits:
    """The bounds of the settings."""
    return Limits(
        gpus=cluster.gpus,
        partitions=cluster.partitions,
        gpus_per_user=cluster.gpus_per_user,
        worth=cluster.worth,
        least_seconds=cluster.least_seconds,
        idle_seconds=cluster.idle_seconds,
        patience_seconds=cluster.patience_seconds,
        residence_seconds=cluster.residence_seconds,
        shortest_walltime=cluster.shortest_walltime,
        longest_walltime=cluster.longest_walltime,
    )


def resources(cluster: ClusterSettings, model: str) -> dict[str, Any]:
    """What a pilot of ``model`` gets, in submitit's words."""
    return {**cluster.resources, **cluster.models.get(model, ModelPilots()).resources}


def minimums(cluster: ClusterSettings, settings: Mapping[str, Any]) -> dict[str, int]:
    """How many pilots each model has without work, too: as configured, as pinned, or until one has loaded it."""
    least: dict[str, int] = {model: own.minimum for model, own in cluster.models.items() if own.minimum}
    for wished in (pinned(settings), dict.fromkeys(wanted_now(settings), 1)):
        least |= {model: max(least.get(model, 0), count) for model, count in wished.items()}
    return least


def backlogs(
    waiting: Mapping[str, ModelBacklog],
    cluster: ClusterSettings,
    in_vain: Mapping[str, float],
    minimum: Mapping[str, int],
) -> dict[str, Backlog]:
    """What waits for each model, with those that keep pilots without work; ``in_vain`` is how long pilots lived so."""
    return {
        model: _backlog(model, waiting.get(model, NOTHING), cluster, in_vain.get(model, 0.0), minimum.get(model, 0))
        for model in sorted({*waiting, *minimum})
    }


def _backlog(model: str, one: ModelBacklog, cluster: ClusterSettings, in_vain: float, minimum: int) -> Backlog:
    own, given = cluster.models.get(model, ModelPilots()), resources(cluster, model)
    return Backlog(
        tokens=one.tokens,
        shards=one.shards,
        oldest_seconds=one.oldest_seconds,
        waited_seconds=one.waited_seconds,
        tokens_per_second=one.tokens_per_second,
        load_seconds=max(one.load_seconds or cluster.load_seconds, LONGER * in_vain),
        gpus=_gpus(given),
        partition=_partition(given),
        minimum=minimum,
        maximum=own.maximum,
    )


def view(pilot: PilotRecord, worker: WorkerRecord | None, now: datetime, busy_seconds: float) -> PilotView:
    """A pilot that has not ended; its worker is idle if it showed no work for ``busy_seconds``."""
    minutes = pilot.resources.get("timeout_min")
    started = None if pilot.started_at is None else pilot.started_at.timestamp()
    return PilotView(
        name=pilot.name,
        model=pilot.model,
        phase=PHASES[pilot.state],
        gpus=_gpus(pilot.resources),
        partition=_partition(pilot.resources),
        started_at=started,
        idle_since=_idle_since(worker, now, busy_seconds),
        ends_at=None if started is None or minutes is None else started + 60 * minutes,
    )


def backing_off(
    pilots: Sequence[PilotRecord], workers: Mapping[int, WorkerRecord], cluster: ClusterSettings, now: datetime
) -> set[str]:
    """Models whose latest pilots failed before they did anything: longer after each, none is started for a while.

    What pilots with other resources than those of the settings met says nothing about the next.
    """
    found = set()
    for model in {pilot.model for pilot in pilots}:
        ended = sorted((one for one in pilots if one.model == model and one.ended_at), key=lambda one: -one.id)
        failures = 0
        for pilot in ended[:RECENT_ENDS]:
            worker = workers.get(pilot.worker_id or 0)
            if _asked_otherwise(pilot, cluster):
                break
            if pilot.state is not PilotState.FAILED or has_worked(worker):
                break
            failures += 1
        if failures:
            wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (failures - 1))
            if ended[0].ended_at is not None and now - ended[0].ended_at < wait:
                found.add(model)
    return found


def in_vain(pilots: Sequence[PilotRecord], workers: Mapping[int, WorkerRecord]) -> dict[str, float]:
    """Models whose newest pilot that ended failed before it did anything, and for how many seconds it ran."""
    newest = {pilot.model: pilot for pilot in sorted(pilots, key=lambda pilot: pilot.id) if pilot.ended_at}
    return {
        model: (pilot.ended_at - pilot.started_at).total_seconds()
        for model, pilot in newest.items()
        if pilot.state is PilotState.FAILED and pilot.started_at and pilot.ended_at
        if not has_worked(workers.get(pilot.worker_id or 0))
    }


def ready(pilots: Iterable[PilotRecord], workers: Mapping[int, WorkerRecord]) -> set[str]:
    """The models that a running pilot has loaded."""
    running = (pilot for pilot in pilots if pilot.state is PilotState.RUNNING)
    inside = (workers.get(pilot.worker_id or 0) for pilot in running)
    return {worker.model for worker in inside if worker is not None and worker.ready_at is not None}


def capped(backlog: Mapping[str, Backlog], models: Iterable[str], pilots: Sequence[PilotView]) -> dict[str, Backlog]:
    """The backlog with no more pilots wanted of ``models`` than there are."""
    counts = {model: sum(pilot.model == model for pilot in pilots) for model in models}
    return {
        model: replace(one, minimum=0, maximum=counts[model]) if model in counts else one
        for model, one in backlog.items()
    }


def _asked_otherwise(pilot: PilotRecord, cluster: ClusterSettings) -> bool:
    chosen = {"timeout_min": None}
    return {**pilot.resources, **chosen} != {**resources(cluster, pilot.model), **chosen}


def _idle_since(worker: WorkerRecord | None, now: datetime, busy_seconds: float) -> float | None:
    if worker is None or worker.ready_at is None:
        return None
    last = max(worker.ready_at, worker.worked_at or worker.ready_at)
    return last.timestamp() if (now - last).total_seconds() > busy_seconds else None


def _gpus(given: Mapping[str, Any]) -> int:
    return max(1, int(given.get("gpus_per_node", 0)))


def _partition(given: Mapping[str, Any]) -> str:
    return str(given.get("slurm_partition", ""))
