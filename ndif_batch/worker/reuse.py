"""Takes what a leased shard wants out of the archives of earlier jobs that saved the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import structlog

from ndif_batch.archive import ArchiveSpec, SavedTasks
from ndif_batch.errors import UsageError
from ndif_batch.queue.records import JobRecord
from ndif_batch.sweep.matching import NONE, Matching
from ndif_batch.sweep.space import Space
from ndif_batch.worker.work import OpenJob, ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier job: which of its tasks equal those of another, and what they saved."""

    matching: Matching
    saved: SavedTasks


class Reuse:
    """Fills shards from earlier jobs. ``find`` gives the record of the second job, if the first may take from it."""

    def __init__(self, find: Callable[[int, int], JobRecord | None]) -> None:
        self._find = find

    def fill(self, work: ShardWork) -> None:
        """Give a shard what earlier jobs saved of it. What cannot be had, for whatever reason, is left to be run."""
        for source in self._of(work.job):
            waiting = np.array(work.waiting, dtype=np.int64)
            old = source.matching.old_tasks(waiting + work.shard.first_task)
            values = source.saved.take(np.unique(old[old != NONE]))
            for place, task in zip(waiting.tolist(), old.tolist(), strict=True):
                if task in values:
                    work.reuse(place, values[task])
            if not work.missing:
                return

    def _of(self, job: OpenJob) -> Iterator[Source]:
        """Earlier jobs in the order in which the queue named them, each read when it is reached."""
        for job_id in job.record.options.get("reuse", ()):
            if job_id not in job.sources:
                job.sources[job_id] = self._source(job, job_id)
            source = job.sources[job_id]
            if source is not None:
                yield source

    def _source(self, job: OpenJob, job_id: int) -> Source | None:
        """None for a job whose results are not there to take, or that cannot be read: a statistic has no tasks."""
        earlier = self._find(job.record.id, job_id)
        if earlier is None:
            return None
        try:
            space = Space.from_json(earlier.space)
            axes = {axis.name: axis.columns for axis in space.axes}
            spec = ArchiveSpec.described(axes, earlier.tile, earlier.arrays)
        except (UsageError, KeyError, TypeError, ValueError) as error:
            log.warning("reuse.unreadable", job=job.record.id, earlier=job_id, reason=str(error))
            return None
        if spec.reduced:
            return None
        return Source(Matching(job.graph, job.space, space), SavedTasks(earlier.store, spec))
