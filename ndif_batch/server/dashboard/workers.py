"""The page of workers and of the pilots that they live in: node, GPU, leases, walltime, and how long ago they spoke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.figures import Held
from ndif_batch.queue.records import WorkerRecord, WorkerState
from ndif_batch.server.dashboard.visit import Visit

SILENT_SECONDS = 30
"""A worker that is alive speaks every few seconds; after so long it is shown as silent."""


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """A worker, its pilot, or both."""

    worker: WorkerRecord | None
    pilot: PilotRecord | None
    held: Held | None
    ends_at: datetime | None
    state: str
    silent: bool

    @property
    def key(self) -> str:
        """Its place in the page."""
        return f"worker-{self.worker.id}" if self.worker else f"pilot-{self.pilot.id if self.pilot else 0}"


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    now, held, workers = queue.queue.now(), queue.queue.held(), queue.live_workers()
    pilots = queue.pilots()
    lines = _lines(workers, pilots, held, now)
    over = (WorkerState.STOPPED, WorkerState.LOST)
    return {
        "now": now,
        "lines": [one for one in lines if one.worker is None or one.worker.state not in over],
        "gone": [one for one in lines if one.worker is not None and one.worker.state in over],
    }


def _lines(
    workers: Sequence[WorkerRecord], pilots: Sequence[PilotRecord], held: Mapping[int, Held], now: datetime
) -> list[WorkerLine]:
    inside = {pilot.worker_id: pilot for pilot in pilots if pilot.worker_id is not None}
    lines = [_line(worker, inside.get(worker.id), held.get(worker.id), now) for worker in workers]
    known = {worker.id for worker in workers}
    return lines + [_line(None, pilot, None, now) for pilot in pilots if pilot.worker_id not in known]


def _line(worker: WorkerRecord | None, pilot: PilotRecord | None, held: Held | None, now: datetime) -> WorkerLine:
    minutes = None if pilot is None else pilot.resources.get("timeout_min")
    started = None if pilot is None else pilot.started_at
    ends_at = None if minutes is None or started is None else started + timedelta(minutes=minutes)
    draining = pilot is not None and pilot.state is PilotState.DRAINING
    state = "DRAINING" if draining else worker.state if worker is not None else pilot.state if pilot is not None else ""
    alive = worker is not None and worker.stopped_at is None
    silent = alive and worker is not None and (now - worker.heartbeat_at).total_seconds() > SILENT_SECONDS
    return WorkerLine(worker, pilot, held, ends_at, str(state), silent)
