"""What the decisions on pilots see and say: backlogs, pilots, limits, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class PilotPhase(StrEnum):
    """Where a pilot is: not yet given a node, loading or working, asked to end."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for one model and what a pilot of it needs.

    ``tokens`` are those of waiting shards by user. ``oldest_seconds`` is the age of the oldest waiting shard,
    ``waited_seconds`` the time since the later of its submission and the last lease of the model's shards: near 0 while
    the model is served. ``tokens_per_second`` of one pilot is None until measured; one pilot then measures it.
    ``minimum`` pilots stay without work.
    """

    tokens: Mapping[str, int]
    shards: int
    oldest_seconds: float
    waited_seconds: float
    tokens_per_second: float | None
    load_seconds: float
    gpus: int = 1
    partition: str = ""
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotView:
    """A pilot that holds or waits for ``gpus``. Times are seconds on the clock of ``now``; None is unknown or not yet.

    ``idle_since`` is None while it works or loads; ``ends_at`` is the end of its walltime.
    """

    name: str
    model: str
    phase: PilotPhase
    gpus: int = 1
    partition: str = ""
    started_at: float | None = None
    idle_since: float | None = None
    ends_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What pilots may take: GPUs of the cluster, of a partition, for the work of one user; and when to change.

    A pilot is worth starting for ``worth`` times its time to load, at least ``least_seconds`` of work. It is released
    after ``idle_seconds`` without work, and evicted no sooner than ``residence_seconds`` after its start for a model
    that has waited ``patience_seconds``; an idle one at once. Walltimes lie between the two bounds.
    """

    gpus: int
    partitions: Mapping[str, int] = field(default_factory=dict)
    gpus_per_user: int | None = None
    worth: float = 5.0
    least_seconds: float = 60.0
    idle_seconds: float = 300.0
    patience_seconds: float = 120.0
    residence_seconds: float = 1800.0
    shortest_walltime: float = 3600.0
    longest_walltime: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start ``count`` pilots of ``model`` with this walltime."""

    model: str
    count: int
    walltime_seconds: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """Pilots to start, and the names of those to drain, or to cancel where they are still queued."""

    start: tuple[Start, ...] = ()
    drain: tuple[str, ...] = ()


class Room:
    """GPUs that are free in the cluster and in each partition that has a limit; may go below 0."""

    def __init__(self, limits: Limits) -> None:
        self._cluster = limits.gpus
        self._partitions = dict(limits.partitions)

    def holds(self, partition: str, gpus: int) -> bool:
        """Whether a pilot of so many GPUs fits."""
        return gpus <= min(self._cluster, self._partitions.get(partition, self._cluster))

    def take(self, partition: str, gpus: int) -> None:
        """Count GPUs as used; as free again if negative."""
        self._cluster -= gpus
        if partition in self._partitions:
            self._partitions[partition] -= gpus

    def helped(self, partition: str, gpus: int, other: str) -> bool:
        """Whether a pilot that does not fit would gain from free GPUs of ``other``."""
        return other == partition or self._partitions.get(partition, gpus) >= gpus
