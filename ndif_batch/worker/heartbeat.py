"""Tells the queue that a worker lives and how far it is, and learns which of its shards it has lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import timedelta
from threading import Event, Lock, Thread
from types import TracebackType

import structlog

from ndif_batch.errors import UnavailableError
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.protocol import WorkerQueue
from ndif_batch.queue.records import Lease
from ndif_batch.worker.ending import Asked

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Heartbeat:
    """Holds the worker's leases; as a context it renews them from a thread of its own.

    ``draining`` is whether the queue, or a signal, asks the worker to end. Threads may share it; who tells progress
    does not wait for the queue.
    """

    def __init__(
        self,
        queue: WorkerQueue,
        worker_id: int,
        *,
        lease_seconds: float,
        every_seconds: float,
        device: Callable[[], DeviceReading | None] = lambda: None,
    ) -> None:
        self.draining = Asked()
        self._queue = queue
        self.worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._every_seconds = every_seconds
        self._device = device
        self._held: dict[int, int] = {}
        self._telling: set[int] = set()
        self._holding = Lock()
        self._asking = Lock()
        self._ended = Event()
        self._thread = Thread(target=copy_context().run, args=(self._run,), name="heartbeat", daemon=True)

    def lease(self, model: str, max_tokens: int) -> Sequence[Lease]:
        """New leases from the queue, or those of an earlier call whose answer was lost.

        No beat comes between: it would not name the new shards.
        """
        with self._asking:
            held = tuple(self._now_held())
            leases = self._queue.lease(self.worker_id, model, max_tokens, self._lease_seconds, held=held)
            with self._holding:
                self._held |= {lease.shard.id: 0 for lease in leases}
            return leases

    @property
    def lease_time(self) -> timedelta:
        """For how long it leases, by the queue's clock."""
        return timedelta(seconds=self._lease_seconds)

    @property
    def holds_any(self) -> bool:
        """Whether any shard is still the worker's."""
        return bool(self._held)

    def holds(self, shard_id: int) -> bool:
        """Whether the shard is still the worker's, as far as the last beat knows."""
        return shard_id in self._held

    def progress(self, shard_id: int, tasks_done: int) -> None:
        """How many tasks of a held shard are done, for the next beat."""
        with self._holding:
            if shard_id in self._held:
                self._held[shard_id] = tasks_done

    def release(self, shard_id: int) -> None:
        """Forget a shard whose outcome the queue has."""
        with self._holding:
            self._held.pop(shard_id, None)

    @contextmanager
    def telling(self, shard_ids: Collection[int]) -> Iterator[None]:
        """Meanwhile the queue is told what became of these shards; its answer, and no beat, says whose they were.

        A beat between the queue's change and its answer would find them lost.
        """
        with self._holding:
            self._telling.update(shard_ids)
        try:
            yield
        finally:
            with self._holding:
                self._telling.difference_update(shard_ids)

    def beat(self) -> None:
        """Renew every lease once, and tell how full and busy the device is."""
        device = self._device()
        with self._asking:
            reply = self._queue.heartbeat(self.worker_id, self._lease_seconds, self._now_held(), device)
            lost = self._lose(reply.lost)
        for shard_id in lost:
            log.warning("shard.lost", shard=shard_id)
        if reply.drain:
            self.draining.ask("the queue asked it to")

    def _lose(self, shard_ids: Collection[int]) -> list[int]:
        """Forget those that the worker still thought its own, and give them."""
        with self._holding:
            lost = [shard_id for shard_id in shard_ids if shard_id in self._held and shard_id not in self._telling]
            for shard_id in lost:
                del self._held[shard_id]
            return lost

    def _now_held(self) -> dict[int, int]:
        with self._holding:
            return dict(self._held)

    def _run(self) -> None:
        while not self._ended.wait(self._every_seconds):
            self._try_to_beat()

    def _try_to_beat(self) -> None:
        try:
            self.beat()
        except UnavailableError as error:
            log.warning("heartbeat.missed", reason=error.message)
        except Exception as error:
            log.error("heartbeat.failed", exc_info=error)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._try_to_beat()  # what was measured since the last beat
