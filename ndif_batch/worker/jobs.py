"""The jobs that a worker has open: read once, their archives made at the first lease and finished at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import structlog

from ndif_batch import blobs
from ndif_batch.archive import ArchiveSpec, clean, create, finish
from ndif_batch.archive.group import MANIFEST
from ndif_batch.errors import IntegrityError, NotFoundError
from ndif_batch.graph.serialize import graph_from_json
from ndif_batch.graph.validate import constants
from ndif_batch.models.tokenizer import Tokenizer
from ndif_batch.queue.records import EndedJob, JobRecord, JobState, ModelRecord
from ndif_batch.sweep.space import Space
from ndif_batch.worker.ports import Counters
from ndif_batch.worker.provenance import Runtime, job_attributes
from ndif_batch.worker.work import OpenJob, ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Counted:
    """An engine's counters at one moment."""

    passes: int
    tasks: int

    @classmethod
    def now(cls, counters: Counters) -> Counted:
        """As they stand; the engine counts on while a shard waits for its writer."""
        return cls(counters.passes, counters.tasks)


@dataclass(slots=True)
class Sharing:
    """Where the engine's counters stood when a worker began with a job, and with how many jobs at most it ran."""

    passes: int
    tasks: int
    jobs: int = 1

    def attributes(self, now: Counted) -> dict[str, Any]:
        """What the last worker did while it had the job: passes, the tasks of all jobs in them, jobs in one call."""
        passes, tasks = now.passes - self.passes, now.tasks - self.tasks
        per_pass = {"tasks_per_pass": round(tasks / passes, 2)} if passes else {}
        return {"sharing": {"passes": passes, "tasks": tasks, "jobs": self.jobs, **per_pass}}


class OpenJobs:
    """Jobs by id. ``blobs_directory`` holds the constant tensors that graphs name."""

    def __init__(
        self, model: ModelRecord, tokenizer: Tokenizer | None, runtime: Runtime, blobs_directory: Path
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._runtime = runtime
        self._blobs = blobs_directory
        self._open: dict[int, OpenJob] = {}
        self._sharing: dict[int, Sharing] = {}
        self._closing = Lock()

    def open(self, record: JobRecord, saved: Callable[[JobRecord], dict[str, Any]]) -> OpenJob:
        """The job, ready to run: its archive exists and its constants are here; ``saved`` gives those of other jobs.

        Raises ``GraphError`` or ``SweepError`` for a row that cannot be read, ``NotFoundError`` or
        ``IntegrityError`` for a missing or damaged constant, ``UnavailableError`` if the disk refuses.
        """
        if record.id not in self._open:
            self._open[record.id] = self._read(record, saved(record))
        return self._open[record.id]

    def close(self, job: EndedJob, counters: Counted) -> None:
        """Forget an ended job; the archive of one that was not cancelled gets its manifest, if it lacks it.

        Two threads may find that a job has ended; the second waits for the first.
        """
        with self._closing:
            self._close(job, counters)

    def _close(self, job: EndedJob, counters: Counted) -> None:
        self._open.pop(job.id, None)
        sharing = self._sharing.pop(job.id, None)
        path = job.store
        if job.state is JobState.CANCELLED or not path.is_dir() or (path / MANIFEST).exists():
            return
        together = sharing.attributes(counters) if sharing else {}
        verified = {"verified": job.verified.to_json()}
        ending = {**self._runtime.attributes(), **together, **verified, "state": job.state.value}
        try:
            clean(path)
            finish(path, ending)
        except (NotFoundError, IntegrityError) as error:
            log.error("archive.damaged", job=job.id, reason=error.message)
            return
        log.info("job.finished", job=job.id, state=job.state.value)

    def count_call(self, works: Sequence[ShardWork], counters: Counted) -> None:
        """Remember which jobs are about to run together."""
        together = {work.job.record.id for work in works}
        for job_id in together:
            sharing = self._sharing.setdefault(job_id, Sharing(counters.passes, counters.tasks))
            sharing.jobs = max(sharing.jobs, len(together))

    def _read(self, record: JobRecord, saved: dict[str, Any]) -> OpenJob:
        graph, space = graph_from_json(record.graph), Space.from_json(record.space)
        attributes = job_attributes(record, self._model, graph, space, self._tokenizer)
        axes = {axis.name: axis.columns for axis in space.axes}
        spec = ArchiveSpec.described(axes, record.tile, record.arrays, attributes)
        create(record.store, spec)
        tensors = blobs.load(self._blobs, (constants(graph) | space.tensors()).difference(saved))
        return OpenJob(record, graph, space, spec, tensors | saved, self._model.dtype, excluded=space.excluded())
