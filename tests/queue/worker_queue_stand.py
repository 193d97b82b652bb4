"""What the conformance suite of the workers' queue needs to know of an implementation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ndif_batch.queue.protocol import Finished, WorkerQueue
from ndif_batch.queue.records import Lease, ShardRecord
from ndif_batch.queue.store import Queue
from tests.queue.queue_samples import new_worker, take


class Clock(Protocol):
    """The time of the queue; it stands still until it is moved."""

    def forward(self, seconds: float) -> None:
        """Let so many seconds pass."""


@dataclass(frozen=True)
class Stand:
    """A ``queue`` under test, empty but for ``MODEL``; an administrator's handle on what is behind it; its time."""

    queue: WorkerQueue
    admin: Queue
    clock: Clock
    worker: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "worker", new_worker(self.queue))

    def take(self, shards: int = 1) -> list[Lease]:
        """Leases of the stand's worker."""
        return take(self.queue, self.worker, shards)

    def shard(self, lease: Lease) -> ShardRecord:
        """A leased shard as it stands now."""
        return next(shard for shard in self.admin.shards(lease.job.id) if shard.id == lease.shard.id)

    def everything(self) -> dict[str, Any]:
        """All that the queue knows."""
        jobs = self.admin.jobs(limit=1000)
        return {
            "jobs": jobs,
            "shards": [self.admin.shards(job.id) for job in jobs],
            "failures": [self.admin.failures(job.id) for job in jobs],
            "workers": self.admin.workers(),
            "usage": self.admin.usage_of(),
            "events": self.admin.events(limit=1000),
        }


@dataclass(frozen=True)
class Outage:
    """``during`` it every call raises ``UnavailableError``; ``happens`` says whether what was asked happens anyway."""

    during: Callable[[], AbstractContextManager[None]]
    happens: bool


def done(lease: Lease, **more: Any) -> Finished:
    """The outcome of a lease whose results are on disk."""
    return Finished(lease.shard.id, lease.shard.epoch, **more)
