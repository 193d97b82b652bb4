"""What became of the pilots that the table holds, by what the launcher and their workers tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from ndif_batch import launcher
from ndif_batch.launcher import Observed
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import WorkerRecord, WorkerState

WITHOUT_FAULT = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"}
)
"""Ends that say nothing against the shards of a pilot, in Slurm's words."""

OUT_OF_TIME = frozenset({"DEADLINE", "TIMEOUT"})
"""Those that a pilot is to blame for if it had done nothing by then: the next one of this kind would do no better."""

UNSEEN = "its launcher does not know it any more"

ALIVE = (WorkerState.STARTING, WorkerState.RUNNING, WorkerState.DRAINING)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a pilot may be pending at the launcher, unknown to it, silent, and on its way out."""

    pending: timedelta = timedelta(hours=1)
    unseen: timedelta = timedelta(seconds=30)
    silent: timedelta = timedelta(seconds=60)
    drain: timedelta = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done about one pilot.

    ``cancel`` asks the launcher to end it. ``worker`` is one that is gone with it and whose shards go back at once;
    ``died`` counts against them.
    """

    pilot: PilotRecord
    state: PilotState
    reason: str | None = None
    external_id: str | None = None
    cancel: bool = False
    worker: int | None = None
    died: bool = False


def reconcile(
    pilots: Iterable[PilotRecord],
    workers: Mapping[int, WorkerRecord],
    observed: Mapping[str, Observed],
    now: datetime,
    waits: Waits,
) -> list[Change]:
    """The changes that make the table true. The same state asks for none once they are made."""
    changes = []
    for pilot in pilots:
        worker = None if pilot.worker_id is None else workers.get(pilot.worker_id)
        change = _change(pilot, worker, observed.get(pilot.name), now, waits)
        if change is not None:
            changes.append(change)
    return changes


def _change(
    pilot: PilotRecord, worker: WorkerRecord | None, seen: Observed | None, now: datetime, waits: Waits
) -> Change | None:
    if seen is None:
        return _unseen(pilot, worker, now, waits)
    match seen.state:
        case launcher.PilotState.QUEUED:
            return _queued(pilot, worker, seen, now, waits)
        case launcher.PilotState.RUNNING:
            return _running(pilot, worker, seen, now, waits)
        case launcher.PilotState.ENDED:
            return _ended(pilot, worker, seen)
        case launcher.PilotState.UNKNOWN:
            return None
        case _:
            assert_never(seen.state)


def _unseen(pilot: PilotRecord, worker: WorkerRecord | None, now: datetime, waits: Waits) -> Change | None:
    """The launcher may not know it yet, or has forgotten it: then its worker's heart decides.

    It has none while it loads its model. What is still to come was told by a clock that was wrong.
    """
    if worker is None or worker.state is WorkerState.STARTING:
        began = pilot.requested_at if worker is None else worker.registered_at
        recent = abs(now - began) < waits.unseen
        return None if recent else _gone(pilot, worker, UNSEEN, died=True)
    if worker.state is WorkerState.STOPPED:
        return Change(pilot, PilotState.ENDED)
    if worker.state in ALIVE and worker.heartbeat_at - waits.unseen < now < worker.alive_until:
        return None
    return _gone(pilot, worker, UNSEEN, died=True)


def _queued(
    pilot: PilotRecord, worker: WorkerRecord | None, seen: Observed, now: datetime, waits: Waits
) -> Change | None:
    if pilot.state is PilotState.DRAINING:
        return _gone(pilot, worker, seen.reason or "requeued while it drained", died=False, cancel=True)
    if pilot.state is PilotState.RUNNING:
        return Change(pilot, PilotState.QUEUED, seen.reason or "requeued", worker=_alive(worker))
    if now - pilot.requested_at > waits.pending:
        waited = f"left pending for {waits.pending}: {seen.reason or 'no reason given'}"
        return Change(pilot, PilotState.FAILED, waited, cancel=True)
    if pilot.state is PilotState.REQUESTED or (seen.reason and seen.reason != pilot.reason):
        return Change(pilot, PilotState.QUEUED, seen.reason or None, seen.external_id)
    return None


def _running(
    pilot: PilotRecord, worker: WorkerRecord | None, seen: Observed, now: datetime, waits: Waits
) -> Change | None:
    if worker is not None and worker.state is not WorkerState.STOPPED and now - worker.alive_until > waits.silent:
        return _gone(pilot, worker, "its worker is silent", died=True, cancel=True)
    if pilot.draining_at is not None and now - pilot.draining_at > waits.drain:
        return Change(
            pilot,
            PilotState.FAILED,
            f"asked to end and had not after {waits.drain}",
            cancel=True,
            worker=_alive(worker),
        )
    if pilot.state in (PilotState.REQUESTED, PilotState.QUEUED):
        where = f"on {seen.node}" if seen.node else None
        return Change(pilot, PilotState.RUNNING, where, seen.external_id)
    if pilot.external_id is None:
        return Change(pilot, pilot.state, external_id=seen.external_id)
    return None


def _ended(pilot: PilotRecord, worker: WorkerRecord | None, seen: Observed) -> Change:
    word = re.split(r"[^A-Z_]", seen.reason, maxsplit=1)[0]
    orderly = word in WITHOUT_FAULT
    in_vain = word in OUT_OF_TIME and not has_worked(worker)
    state = PilotState.ENDED if orderly and not in_vain else PilotState.FAILED
    return Change(
        pilot,
        state,
        seen.reason or "it ended without a word",
        seen.external_id,
        worker=_alive(worker),
        died=not orderly,
    )


def has_worked(worker: WorkerRecord | None) -> bool:
    """Whether a pilot's worker has ended any shard."""
    return worker is not None and worker.tokens > 0


def _gone(pilot: PilotRecord, worker: WorkerRecord | None, reason: str, *, died: bool, cancel: bool = False) -> Change:
    state = PilotState.FAILED if died else PilotState.ENDED
    return Change(pilot, state, reason, cancel=cancel, worker=_alive(worker), died=died)


def _alive(worker: WorkerRecord | None) -> int | None:
    return worker.id if worker is not None and worker.state in ALIVE else None
