"""Asks for the shards of a worker's next round: as many as can end in time, now or ahead of the round that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from ndif_batch.errors import UnavailableError
from ndif_batch.queue.protocol import MAX_SHARDS
from ndif_batch.queue.records import Lease
from ndif_batch.worker.committing import Committer
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.walltime import Walltime

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leased:
    """Shards that were leased together; ``more`` says that the queue may have more: it gave all that was asked for."""

    leases: Sequence[Lease] = ()
    more: bool = False


class Leasing:
    """Leases shards of one model, up to ``max_tokens`` tokens at once, that end before the walltime."""

    def __init__(
        self,
        heart: Heartbeat,
        committer: Committer,
        patience: Patience,
        meter: Meter,
        walltime: Walltime,
        model: str,
        max_tokens: int,
    ) -> None:
        self._heart = heart
        self._committer = committer
        self._ask = patience.ask
        self._meter = meter
        self._walltime = walltime
        self._model = model
        self._max_tokens = max_tokens

    def now(self) -> Leased | None:
        """What waits, through outages of the queue; None if nothing more can end in time."""
        speed = self._meter.tokens_per_second
        room = self._walltime.tokens(speed, self._max_tokens)
        leases = self._ask(lambda: self._lease(room)) if room else ()
        return self._kept(leases, room, self._fits(leases, 0, speed)) if room else None

    def ahead(self, running: int) -> Leased:
        """What waits and ends in time after ``running`` tokens that come first; nothing if the queue is away."""
        speed = self._meter.tokens_per_second
        room = self._walltime.tokens(speed, self._max_tokens, running)
        if not room or (speed is None and self._walltime.ends_at is not None):
            return Leased()
        try:
            leases = self._lease(room)
        except UnavailableError as error:
            log.warning("queue.unavailable", reason=error.message)
            return Leased()
        return self._kept(leases, room, self._fits(leases, running, speed)) or Leased()

    def _lease(self, room: int) -> Sequence[Lease]:
        """What the queue gives; how long it took for that, and how long what it gives has waited, is counted."""
        gauge, began = self._meter.gauge, self._meter.clock()
        leases = self._heart.lease(self._model, room)
        gauge.observe("lease_seconds", self._meter.clock() - began)
        for lease in leases:
            if lease.shard.epoch == 1 and lease.shard.lease_until is not None:
                leased_at = lease.shard.lease_until - self._heart.lease_time
                waited = (leased_at - lease.job.submitted_at).total_seconds()
                gauge.observe("task_wait_seconds", max(0.0, waited), lease.shard.tasks)
        return leases

    def _fits(self, leases: Sequence[Lease], running: int, speed: float | None) -> bool:
        return self._walltime.holds(running + (_tokens(leases[0]) if leases else 0), speed)

    def _kept(self, leases: Sequence[Lease], room: int, fits: bool) -> Leased | None:
        """All of them, unless the first cannot end in time: then none."""
        if fits:
            return Leased(leases, _is_all(leases, room))
        for lease in leases:
            self._committer.give_back(lease)
        return None


def _tokens(lease: Lease) -> int:
    return lease.shard.tasks * lease.job.tokens_per_task


def _is_all(leases: Sequence[Lease], room: int) -> bool:
    """Whether one more shard such as these would have been too much."""
    tokens = [_tokens(lease) for lease in leases]
    return len(leases) >= MAX_SHARDS or (bool(tokens) and sum(tokens) + max(tokens) > room)
