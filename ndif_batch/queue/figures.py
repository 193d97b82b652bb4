"""What a dashboard sums up over many rows of the queue, as frozen data. No SQL here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ndif_batch.queue.records import EventKind, JobState


@dataclass(frozen=True, slots=True)
class Pulse:
    """Changes whenever something does that a page shows: the newest event, tasks done inside leases, a heartbeat.

    ``tokens`` went through workers since the beginning of time: two pulses tell how many do in a second.
    """

    event: int
    progress: int
    heard_at: datetime | None
    tokens: int


@dataclass(frozen=True, slots=True)
class JobFigures:
    """The jobs of one model in one state: how many, and their tasks."""

    model: str
    state: JobState
    jobs: int
    tasks: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """What one user's results take up: how many jobs have some, and the bytes that they were granted."""

    user: str
    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows: those of a user, a state, a model, or with a text in their name; None is any."""

    user: str | None = None
    state: JobState | None = None
    model: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The shards that a worker holds, and when the first of its leases ends."""

    shards: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a list shows: of one actor, of one kind, ``by_people`` alone and not by what runs by itself."""

    actor: str | None = None
    kind: EventKind | None = None
    by_people: bool = False
