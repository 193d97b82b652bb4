"""What Prometheus reads, counted anew at each look; never a user or a job as a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ndif_batch.queue import Queue
from ndif_batch.queue.records import WorkerRecord, WorkerState

LIVING = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)


@dataclass(frozen=True, slots=True)
class QueueCollector(Collector):
    """The queue in numbers."""

    queue: Queue

    def collect(self) -> Iterator[Metric]:
        """Every metric, from one look at each table."""
        counts, backlog, workers = self.queue.counts(), self.queue.backlog(), self.queue.workers()
        yield _gauge("jobs", "Jobs by state.", ("state",), {(s.value,): n for s, n in counts.jobs.items()})
        tasks = {(model, state.value): n for (model, state), n in counts.tasks.items()}
        yield _gauge("tasks", "Tasks by model and state.", ("model", "state"), tasks)
        yield _gauge("archive_bytes", "Bytes of results that jobs may fill.", (), {(): counts.archive_bytes})
        waits = {(model,): one.oldest_seconds for model, one in backlog.items()}
        yield _gauge("oldest_waiting_seconds", "Age of the oldest waiting job.", ("model",), waits)
        waiting = {(model,): float(sum(one.tokens.values())) for model, one in backlog.items()}
        yield _gauge("waiting_tokens", "Tokens that wait for a worker.", ("model",), waiting)
        states = Counter((one.model, one.state.value) for one in workers)
        yield _gauge("workers", "Workers by model and state.", ("model", "state"), dict(states))
        yield from self._living([one for one in workers if one.state in LIVING])
        yield _gauge("build_info", "Which version serves.", ("version",), {(version("ndif-batch"),): 1})

    def _living(self, workers: list[WorkerRecord]) -> Iterator[Metric]:
        now = self.queue.now()
        labels = ("model", "worker")
        ages = {_names(one): (now - one.heartbeat_at).total_seconds() for one in workers}
        yield _gauge("worker_heartbeat_age_seconds", "Since a worker last spoke.", labels, ages)
        used = {_names(one): one.memory_used for one in workers if one.memory_used is not None}
        yield _gauge("gpu_memory_bytes", "Memory in use on a worker's device.", labels, used)
        busy = {_names(one): one.utilization for one in workers if one.utilization is not None}
        yield _gauge("gpu_busy_ratio", "How busy a worker's device is.", labels, busy)


def metrics(queue: Queue) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(QueueCollector(queue))
    return generate_latest(registry)


def _names(worker: WorkerRecord) -> tuple[str, ...]:
    return worker.model, str(worker.id)


def _gauge(name: str, meaning: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """``values`` by the labels' values."""
    family = GaugeMetricFamily(f"ndif_batch_{name}", meaning, labels=labels)
    for names, value in values.items():
        family.add_metric(names, value)
    return family
