"""The workers' queue over any transport: a worker's end that sends requests, and the queue's end that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ndif_batch.errors import NdifBatchError
from ndif_batch.queue import wire
from ndif_batch.queue.cluster import FREE, Cost, DeviceReading
from ndif_batch.queue.protocol import MAX_SHARDS, Finished, WorkerQueue
from ndif_batch.queue.records import EndedJob, HeartbeatReply, JobRecord, Lease, ModelRecord


def serve(queue: WorkerQueue, request: bytes) -> bytes:
    """The reply to a worker's request: what ``queue`` answers, or the error that it or the request's form raises."""
    try:
        call, arguments = wire.request_from_json(request)
        return wire.answer_to_json(call, getattr(queue, call)(**arguments))
    except NdifBatchError as error:
        return wire.error_to_json(error)


class RemoteQueue:
    """A :class:`~ndif_batch.queue.protocol.WorkerQueue` behind ``send``, which brings a request to :func:`serve`.

    ``send`` raises ``UnavailableError`` when no reply came.
    """

    def __init__(self, send: Callable[[bytes], bytes]) -> None:
        self._send = send

    def _ask(self, call: str, **arguments: Any) -> Any:
        return wire.answer_from_json(call, self._send(wire.request_to_json(call, arguments)))

    def model(self, name: str) -> ModelRecord:
        """See :class:`~ndif_batch.queue.protocol.WorkerQueue`, as for the methods below."""
        model: ModelRecord = self._ask("model", name=name)
        return model

    def register_worker(self, model: str, host: str, pid: int, pilot: str | None = None, key: str | None = None) -> int:
        """A new worker's id; the same ``key`` is the same worker."""
        worker_id: int = self._ask("register_worker", model=model, host=host, pid=pid, pilot=pilot, key=key)
        return worker_id

    def lease(
        self,
        worker_id: int,
        model: str,
        max_tokens: int,
        lease_seconds: float,
        max_shards: int = MAX_SHARDS,
        held: Sequence[int] | None = None,
    ) -> list[Lease]:
        """Shards of ``model``, or those of a call whose answer was lost."""
        leases: list[Lease] = self._ask(
            "lease",
            worker_id=worker_id,
            model=model,
            max_tokens=max_tokens,
            lease_seconds=lease_seconds,
            max_shards=max_shards,
            held=held,
        )
        return leases

    def heartbeat(
        self,
        worker_id: int,
        lease_seconds: float,
        progress: Mapping[int, int],
        device: DeviceReading | None = None,
    ) -> HeartbeatReply:
        """Renew the leases of all shards that ``progress`` names."""
        reply: HeartbeatReply = self._ask(
            "heartbeat", worker_id=worker_id, lease_seconds=lease_seconds, progress=progress, device=device
        )
        return reply

    def commit(self, finished: Sequence[Finished]) -> set[int]:
        """The results of these shards are on disk; ids of those that ended under the caller's lease."""
        counted: set[int] = self._ask("commit", finished=finished)
        return counted

    def fail(self, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost = FREE) -> bool:
        """The whole shard failed."""
        counted: bool = self._ask(
            "fail", shard_id=shard_id, epoch=epoch, code=code, message=message, retryable=retryable, cost=cost
        )
        return counted

    def give_back(self, shard_id: int, epoch: int) -> bool:
        """Return a shard unfinished."""
        counted: bool = self._ask("give_back", shard_id=shard_id, epoch=epoch)
        return counted

    def stop_worker(self, worker_id: int) -> None:
        """The worker ends in good order."""
        self._ask("stop_worker", worker_id=worker_id)

    def source(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` may take its results."""
        job: JobRecord | None = self._ask("source", job_id=job_id, source_id=source_id)
        return job

    def prerequisite(self, job_id: int, source_id: int) -> JobRecord | None:
        """Job ``source_id``, if job ``job_id`` comes after it."""
        job: JobRecord | None = self._ask("prerequisite", job_id=job_id, source_id=source_id)
        return job

    def has_work(self, model: str) -> bool:
        """Whether a job of ``model`` waits or runs."""
        answer: bool = self._ask("has_work", model=model)
        return answer

    def ended(self, job_ids: Sequence[int]) -> list[EndedJob]:
        """Those of the jobs that have ended."""
        jobs: list[EndedJob] = self._ask("ended", job_ids=job_ids)
        return jobs

    def left_over(self, worker_id: int) -> list[EndedJob]:
        """Ended jobs whose archives the worker may finish if they are not."""
        jobs: list[EndedJob] = self._ask("left_over", worker_id=worker_id)
        return jobs
