"""The page of models: where each is loaded, how long that takes, what waits for it, and how many pilots it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ndif_batch.config import ModelPilots
from ndif_batch.queue.cluster import ModelBacklog
from ndif_batch.queue.reasons import LIVE
from ndif_batch.queue.records import ModelRecord, WorkerRecord
from ndif_batch.queue.wishes import pause_name, paused, pinned, wanted_now
from ndif_batch.server.dashboard.visit import Visit

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model."""

    model: ModelRecord
    workers: Sequence[WorkerRecord]
    waiting: ModelBacklog | None
    load_seconds: float | None
    least: int
    most: int | None
    pinned: int
    asked: bool
    paused: bool
    pause_of_its_own: bool


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    settings, backlog, workers = queue.settings(), queue.backlog(), queue.live_workers()
    return {
        "now": queue.queue.now(),
        "lines": [
            _line(visit, model, settings, backlog.get(model.name), [one for one in workers if one.model == model.name])
            for model in queue.models()
            if model.enabled
        ],
        "dtypes": DTYPES,
    }


def _line(
    visit: Visit,
    model: ModelRecord,
    settings: Mapping[str, Any],
    waiting: ModelBacklog | None,
    workers: Sequence[WorkerRecord],
) -> ModelLine:
    own = visit.queue.server_settings.cluster.models.get(model.name, ModelPilots())
    loads = [(one.ready_at - one.registered_at).total_seconds() for one in workers if one.ready_at is not None]
    pins = pinned(settings).get(model.name, 0)
    return ModelLine(
        model=model,
        workers=[one for one in workers if one.state in LIVE],
        waiting=waiting,
        load_seconds=sum(loads) / len(loads) if loads else (waiting.load_seconds if waiting else None),
        least=max(own.minimum, pins),
        most=own.maximum,
        pinned=pins,
        asked=model.name in wanted_now(settings),
        paused=paused(settings, model.name),
        pause_of_its_own=bool(settings.get(pause_name(model.name))),
    )
