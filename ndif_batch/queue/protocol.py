"""The worker's side of the queue: all that a process that drains shards asks, in calls that are small and bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ndif_batch.archive.verified import Verified
from ndif_batch.queue.cluster import FREE, Cost, DeviceReading
from ndif_batch.queue.records import EndedJob, HeartbeatReply, JobRecord, Lease, ModelRecord, TaskFailure

LEASE_PASSES = 16
"""How many passes' worth of tokens a worker leases at once, so that shards of several jobs meet in one pass."""
MAX_SHARDS = 64
"""The most shards one lease gives unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A shard whose results are on disk, except for ``failures``. ``cost`` is charged to the job's user.

    ``check`` is what came of running some of its tasks again alone.
    """

    shard_id: int
    epoch: int
    failures: Sequence[TaskFailure] = ()
    cost: Cost = FREE
    check: Verified | None = None


class WorkerQueue(Protocol):
    """Leases shards and takes their outcome. An outcome counts only under the shard's current epoch.

    Every argument and answer is data that :mod:`ndif_batch.queue.wire` writes as JSON. A call that raises
    ``UnavailableError`` may have happened or not; whoever makes it again does no harm.
    """

    def model(self, name: str) -> ModelRecord:
        """One model; ``NotFoundError`` with the nearest name if there is none."""

    def register_worker(self, model: str, host: str, pid: int, pilot: str | None = None, key: str | None = None) -> int:
        """A new worker's id; it is ``STARTING`` until its first lease. ``pilot`` is the name of the one it runs in.

        The same ``key`` is the same worker. ``NotFoundError`` for an unknown model.
        """

    def lease(
        self,
        worker_id: int,
        model: str,
        max_tokens: int,
        lease_seconds: float,
        max_shards: int = MAX_SHARDS,
        held: Sequence[int] | None = None,
    ) -> list[Lease]:
        """Shards of ``model`` up to ``max_tokens`` tokens together, at least one if any waits; none while draining.

        Leases that ran out come back first. A shard that is suspected of killing its workers comes alone, and
        only to a worker that holds nothing else; while it is held the worker gets nothing more.

        ``held`` are the shards that the worker knows it has, None if it knows of all. If it was leased others, their
        answer was lost: they are the answer again, under the same epochs, and nothing else is leased.
        """

    def heartbeat(
        self,
        worker_id: int,
        lease_seconds: float,
        progress: Mapping[int, int],
        device: DeviceReading | None = None,
    ) -> HeartbeatReply:
        """Renew the leases that ``progress`` names (shard id → tasks done so far): it must name every shard held."""

    def commit(self, finished: Sequence[Finished]) -> set[int]:
        """End these shards together; ids of those that ended under the caller's lease, by this call or an earlier one.

        The others count for nothing, and users are charged once for each lease that ends so. ``UsageError``, and
        nothing counts, for failures that are not of their shard.
        """

    def fail(self, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost = FREE) -> bool:
        """The whole shard failed; a ``retryable`` one waits and is tried again up to its job's ``max_retries``."""

    def give_back(self, shard_id: int, epoch: int) -> bool:
        """Return a shard unfinished; no attempt is counted."""

    def stop_worker(self, worker_id: int) -> None:
        """The worker ends in good order; what it still holds is given back."""

    def source(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` may take its results: both of one user and identity, and not removed."""

    def prerequisite(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` may read its results: it comes after it, which is completed, and both
        are of one user."""

    def has_work(self, model: str) -> bool:
        """Whether a job of ``model`` waits or runs."""

    def ended(self, job_ids: Sequence[int]) -> list[EndedJob]:
        """Those of the jobs that have ended."""

    def left_over(self, worker_id: int) -> list[EndedJob]:
        """Ended jobs of the worker's model, newest first, whose archives it may finish if they are not.

        One that ended lately is left to the other workers of the model, if one lives: two that finish an archive at
        once would disagree.
        """
