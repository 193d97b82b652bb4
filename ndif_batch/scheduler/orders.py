"""What the scheduler and administrators order pilots to do."""

from __future__ import annotations

from ndif_batch.launcher import Launcher
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import PilotRecord, PilotState


def drain(queue: Queue, launcher: Launcher, pilot: PilotRecord, *, actor: str, reason: str) -> None:
    """Let a pilot end in good order; one that has not begun never begins."""
    if pilot.state in (PilotState.REQUESTED, PilotState.QUEUED):
        launcher.cancel(pilot.name)
        queue.update_pilot(pilot.id, pilot.state, PilotState.ENDED, reason=reason, actor=actor)
    elif pilot.state is PilotState.RUNNING:
        if pilot.worker_id is not None:
            queue.drain_worker(pilot.worker_id, actor)
        launcher.drain(pilot.name)
        queue.update_pilot(pilot.id, pilot.state, PilotState.DRAINING, reason=reason, actor=actor)


def kill(queue: Queue, launcher: Launcher, pilot: PilotRecord, *, actor: str, reason: str) -> None:
    """End a pilot at once; its shards go back and it does not count against them."""
    launcher.cancel(pilot.name)
    queue.update_pilot(pilot.id, pilot.state, PilotState.ENDED, reason=reason, actor=actor)
    if pilot.worker_id is not None:
        queue.lose_worker(pilot.worker_id, died=False, reason=reason, actor=actor)


def evict(queue: Queue, launcher: Launcher, model: str, *, actor: str, reason: str) -> list[str]:
    """Drain every pilot of a model and keep none any more; their names. Work that waits starts new ones."""
    queue.let_go(queue.model(model).name, actor=actor)
    pilots = [pilot for pilot in queue.pilots() if pilot.model == model]
    for pilot in pilots:
        drain(queue, launcher, pilot, actor=actor, reason=reason)
    return [pilot.name for pilot in pilots]
