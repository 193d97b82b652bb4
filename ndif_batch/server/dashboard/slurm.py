"""The page of Slurm: partitions, nodes, and what our pilots wait for there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

from ndif_batch.errors import UnavailableError
from ndif_batch.queue.cluster import PilotState
from ndif_batch.server.dashboard.visit import Visit

SECONDS = 10
"""Slurm is asked so often at the most, however many look."""

WAITING = (PilotState.REQUESTED, PilotState.QUEUED)


@dataclass(frozen=True, slots=True)
class Seen:
    """What Slurm said, or why it said nothing."""

    partitions: Sequence[Any] = ()
    nodes: Sequence[Any] = ()
    wrong: str = ""


@dataclass
class Slurm:
    """Asks Slurm for all who look at the page, one question at a time: who comes meanwhile sees the last answer."""

    seen: Seen = Seen()
    _asked_at: float = -SECONDS
    _asking: Lock = field(default_factory=Lock)

    def read(self, visit: Visit) -> Mapping[str, Any]:
        """What the page shows."""
        kind = visit.queue.server_settings.cluster.launcher
        pilots = visit.queue.pilots()
        return {
            "now": visit.queue.queue.now(),
            "launcher": kind,
            "seen": self.look() if kind == "slurm" else Seen(),
            "waiting": [pilot for pilot in pilots if pilot.state in WAITING],
            "running": [pilot for pilot in pilots if pilot.state not in WAITING],
        }

    def look(self) -> Seen:
        """What Slurm said a moment ago."""
        if monotonic() - self._asked_at >= SECONDS and self._asking.acquire(blocking=False):
            try:
                self.seen = _ask()
            finally:
                self._asked_at = monotonic()
                self._asking.release()
        return self.seen


def _ask() -> Seen:
    from ndif_batch.launcher import slurm_nodes

    try:
        return Seen(slurm_nodes.partitions(), slurm_nodes.nodes())
    except UnavailableError as error:
        return Seen(wrong=error.message)
