"""What the queue holds about a cluster and its users, as frozen data: pilots, shares, quotas, usage. No SQL here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ndif_batch.queue.records import Json
from ndif_batch.queue.telemetry import Measured


class PilotState(StrEnum):
    """Where a pilot is. ``REQUESTED`` is written before it is started, so that one whose id was lost is found again."""

    REQUESTED = "REQUESTED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    ENDED = "ENDED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """Whether it will not run any more."""
        return self in (PilotState.ENDED, PilotState.FAILED)


class Role(StrEnum):
    """Who a user is: :data:`ndif_batch.queue.access.SCOPES` says what each may do."""

    USER = "user"
    READER = "reader"
    WORKER = "worker"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class PilotRecord:
    """A cluster job that loads one model and drains its shards; ``name`` tells it apart from every other, ever.

    ``external_id`` is the launcher's; ``resources`` are submitit's words; ``worker_id`` is the newest worker inside it.
    """

    id: int
    name: str
    model: str
    launcher: str
    external_id: str | None
    state: PilotState
    resources: Json
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    reason: str | None
    worker_id: int | None
    draining_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """Who leads, and until when unless they renew it."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Quotas:
    """The most that a user may have at once; None is no limit.

    A submission that would go over ``pending_tasks`` or ``archive_bytes`` is refused; over ``running_shards`` it waits.
    """

    pending_tasks: int | None = None
    running_shards: int | None = None
    archive_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user, their ``shares`` of the cluster (two shares get twice of one), and their quotas."""

    name: str
    role: Role
    shares: float
    quotas: Quotas
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """What a shard cost its user; ``tokens`` is what it would have run alone, ``shared_tokens`` what it was spared."""

    gpu_seconds: float = 0.0
    tokens: int = 0
    shared_tokens: int = 0

    def __neg__(self) -> Cost:
        return Cost(-self.gpu_seconds, -self.tokens, -self.shared_tokens)

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """The sum."""
        every = list(costs)
        return cls(
            sum(one.gpu_seconds for one in every),
            sum(one.tokens for one in every),
            sum(one.shared_tokens for one in every),
        )


FREE = Cost()


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """The cost of a user's shards that ended within one hour."""

    user: str
    hour: datetime
    cost: Cost


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What a worker's device says: memory in bytes, ``utilization`` from 0 to 1 where it is known.

    ``measured`` is what the worker has measured since it began, now and then.
    """

    name: str
    memory_used: int
    memory_total: int
    utilization: float | None = None
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class ModelBacklog:
    """What waits for one model. Leased shards are not counted: they are somebody's work already.

    ``tokens`` are told by user. ``oldest_seconds`` is the age of the oldest job with a waiting shard,
    ``waited_seconds`` the time since the later of its submission and the newest sign of work on the model.
    ``tokens_per_second`` and ``load_seconds`` are measured over the model's recent workers, None if there was none.
    """

    tokens: Mapping[str, int]
    tasks: int
    shards: int
    oldest_seconds: float
    waited_seconds: float
    tokens_per_second: float | None
    load_seconds: float | None
