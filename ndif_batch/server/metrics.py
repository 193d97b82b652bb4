"""What Prometheus reads, counted anew at each look; never a user or a job as a label."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from math import fsum
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import WorkerRecord, WorkerState
from ndif_batch.queue.telemetry import BUCKETS, Histogram, Measured
from ndif_batch.scheduler.tick import LEADER

LIVING = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)
PENDING = (PilotState.REQUESTED, PilotState.QUEUED)
IDLE = timedelta(seconds=30)
"""A worker that showed no work for so long is idle."""

OUTCOMES = ("saved", "failed", "reused")
CHECKED = ("verified", "deviating")
OF_SCHEDULERS = "tick_seconds"

MEANING: Mapping[str, str] = {
    "pass_seconds": "How long a pass of the model took.",
    "pass_tasks": "Tasks that shared a pass: the co-batching factor.",
    "pass_tokens": "Tokens that went through the model in a pass.",
    "task_wait_seconds": "From a job's submission to the first lease of its tasks.",
    "lease_seconds": "How long a worker waited for the queue's answer to a lease.",
    OF_SCHEDULERS: "How long a round of the scheduler took.",
}


@dataclass(frozen=True, slots=True)
class QueueCollector(Collector):
    """The queue in numbers, and the disk of its archive."""

    queue: Queue
    archive: Path

    def collect(self) -> Iterator[Metric]:
        """Every metric, from one look at each table."""
        workers, now = self.queue.workers(), self.queue.now()
        yield from self._work()
        yield from self._workers(workers, now)
        yield from self._pilots(now)
        yield from _measured(self.queue.measured())
        yield from self._disk()
        leads = self.queue.leader(LEADER) is not None
        yield _gauge("leader", "Whether a scheduler leads.", (), {(): int(leads)})
        yield _gauge("build_info", "Which version serves.", ("version",), {(version("ndif-batch"),): 1})

    def _work(self) -> Iterator[Metric]:
        counts, backlog = self.queue.counts(), self.queue.backlog()
        yield _gauge("jobs", "Jobs by state.", ("state",), {(s.value,): n for s, n in counts.jobs.items()})
        tasks = {(model, state.value): n for (model, state), n in counts.tasks.items()}
        yield _gauge("tasks", "Tasks by model and state.", ("model", "state"), tasks)
        yield _gauge("archive_bytes", "Bytes of results that jobs may fill.", (), {(): counts.archive_bytes})
        waits = {(model,): one.oldest_seconds for model, one in backlog.items()}
        yield _gauge("oldest_waiting_seconds", "Age of the oldest waiting job.", ("model",), waits)
        waiting = {(model,): float(sum(one.tokens.values())) for model, one in backlog.items()}
        yield _gauge("waiting_tokens", "Tokens that wait for a worker.", ("model",), waiting)

    def _workers(self, workers: list[WorkerRecord], now: datetime) -> Iterator[Metric]:
        states = Counter((one.model, one.state.value) for one in workers)
        yield _gauge("workers", "Workers by model and state.", ("model", "state"), dict(states))
        idle = Counter({(one.model,): 0 for one in workers})
        idle.update((one.model,) for one in workers if _is_idle(one, now))
        yield _gauge("workers_idle", "Workers that have their model and no work.", ("model",), dict(idle))
        loads = _by_model(
            (one.model, (one.ready_at - one.registered_at).total_seconds()) for one in workers if one.ready_at
        )
        newest = {(model,): seconds[0] for model, seconds in loads.items()}
        yield _gauge("model_load_seconds", "How long the newest worker needed for its model.", ("model",), newest)
        for name, meaning, numbers in (
            ("tokens", "Tokens that the tasks of workers would have cost alone.", [one.tokens for one in workers]),
            ("tokens_shared", "Tokens that were spared by sharing.", [one.shared_tokens for one in workers]),
            ("gpu_seconds", "Seconds of GPUs that were charged.", [one.gpu_seconds for one in workers]),
        ):
            sums = _by_model(zip((one.model for one in workers), numbers, strict=True))
            yield _counter(name, meaning, ("model",), {(model,): fsum(found) for model, found in sums.items()})
        labels, living = ("model", "worker"), [one for one in workers if one.state in LIVING]
        ages = {_names(one): (now - one.heartbeat_at).total_seconds() for one in living}
        yield _gauge("worker_heartbeat_age_seconds", "Since a worker last spoke.", labels, ages)
        used = {_names(one): one.memory_used for one in living if one.memory_used is not None}
        yield _gauge("gpu_memory_bytes", "Memory in use on a worker's device.", labels, used)
        busy = {_names(one): one.utilization for one in living if one.utilization is not None}
        yield _gauge("gpu_busy_ratio", "How busy a worker's device is.", labels, busy)

    def _pilots(self, now: datetime) -> Iterator[Metric]:
        pilots = self.queue.pilots()
        states = Counter((one.model, one.state.value) for one in pilots)
        yield _gauge("pilots", "Pilots by model and state.", ("model", "state"), dict(states))
        waits = _by_model((one.model, _pending_seconds(one, now)) for one in pilots if one.state in PENDING)
        oldest = {(model,): max(seconds) for model, seconds in waits.items()}
        yield _gauge("pilot_pending_seconds", "For how long the oldest pending pilot waits.", ("model",), oldest)

    def _disk(self) -> Iterator[Metric]:
        if self.archive.is_dir():
            disk = shutil.disk_usage(self.archive)
            yield _gauge("archive_disk_bytes", "Size of the archive's disk.", (), {(): disk.total})
            yield _gauge("archive_disk_free_bytes", "Free bytes of the archive's disk.", (), {(): disk.free})


def metrics(queue: Queue, archive: Path) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue, archive))
    return generate_latest(registry)


def _measured(found: Mapping[str | None, Measured]) -> Iterator[Metric]:
    """What workers and schedulers report of themselves."""
    of_models = {model: one for model, one in found.items() if model is not None}
    for name in BUCKETS:
        if name == OF_SCHEDULERS:
            continue
        yield _histogram(
            name, ("model",), {(m,): one.histograms[name] for m, one in of_models.items() if name in one.histograms}
        )
    ticks = found.get(None, Measured()).histograms.get(OF_SCHEDULERS)
    yield _histogram(OF_SCHEDULERS, (), {} if ticks is None else {(): ticks})
    for name, meaning, label, kinds in (
        ("tasks_finished", "Tasks that workers have ended.", "outcome", OUTCOMES),
        ("tasks_checked", "Tasks that were run again alone, and those of them that deviate.", "result", CHECKED),
    ):
        counted = {(m, kind): one.counts.get(kind, 0) for m, one in of_models.items() for kind in kinds}
        yield _counter(name, meaning, ("model", label), counted)
    deviations = {(m,): one.deviation for m, one in of_models.items() if one.deviation is not None}
    yield _gauge("verify_deviation", "Largest relative deviation of a task that was run again.", ("model",), deviations)


def _is_idle(worker: WorkerRecord, now: datetime) -> bool:
    if worker.state is not WorkerState.RUNNING or worker.ready_at is None:
        return False
    return now - max(worker.ready_at, worker.worked_at or worker.ready_at) > IDLE


def _pending_seconds(pilot: PilotRecord, now: datetime) -> float:
    return (now - pilot.requested_at).total_seconds()


def _by_model(pairs: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for model, number in pairs:
        found.setdefault(model, []).append(number)
    return found


def _names(worker: WorkerRecord) -> tuple[str, ...]:
    return worker.model, str(worker.id)


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """``values`` by the labels' values."""
    family = GaugeMetricFamily(f"ndif_batch_{name}", meaning, labels=labels)
    for names, value in values.items():
        family.add_metric(names, value)
    return family


def _counter(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(f"ndif_batch_{name}", meaning, labels=labels)
    for names, value in values.items():
        family.add_metric(names, value)
    return family


def _histogram(name: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(f"ndif_batch_{name}", MEANING[name], labels=labels)
    for names, found in values.items():
        sums = [sum(found.counts[: place + 1]) for place in range(len(found.counts))]
        bounds = [*(str(float(bound)) for bound in BUCKETS[name]), "+Inf"]
        family.add_metric(names, list(zip(bounds, sums, strict=True)), found.total)
    return family
