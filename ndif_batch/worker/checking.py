"""Runs a sample of a finished shard's tasks again alone, and keeps how far together was from alone."""

from __future__ import annotations

import structlog

from ndif_batch.archive import Judge, Verified, merged
from ndif_batch.archive.judge import Values
from ndif_batch.errors import TaskError
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.ports import TaskEngine
from ndif_batch.worker.work import ShardWork

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MOST = 0.02
"""Nothing is checked while checks have taken more than this share of the time in which an engine ran."""


class Checks:
    """Checks shards on an ``engine`` of its own, so that its passes count as nobody's."""

    def __init__(self, engine: TaskEngine, meter: Meter) -> None:
        self._engine = engine
        self._meter = meter

    def check(self, work: ShardWork) -> Verified | None:
        """What comes of the tasks of the shard's sample for which there is time; None if nothing was checked.

        Re-used tasks were not run, and those of a job that runs alone were alone. Nothing is raised: a shard is not
        lost because its check is.
        """
        job = work.job
        if job.layout == "solo" or not self._has_time:
            return None
        chosen = work.to_check
        judge = Judge(job.spec.saves, job.model_dtype)
        try:
            found = merged(check for task in chosen if (check := self._checked(work, task, judge)) is not None)
        except Exception as error:
            log.warning("check.failed", job=job.record.id, shard=work.shard.id, exc_info=error)
            return None
        self._tell(found)
        if found.deviating:
            log.error("shard.deviates", job=job.record.id, shard=work.shard.id, **found.to_json())
        return found if found.tasks else None

    def _tell(self, found: Verified) -> None:
        gauge = self._meter.gauge
        gauge.count("verified", found.tasks)
        gauge.count("deviating", len(found.deviating))
        for one in found.deviations:
            gauge.deviates(one.relative)

    @property
    def _has_time(self) -> bool:
        return self._meter.checking_seconds <= MOST * self._meter.engine_seconds

    def _checked(self, work: ShardWork, task: int, judge: Judge) -> Verified | None:
        """One task's check; None if there is no time for it, or if not the task fails but the pass around it."""
        if not self._has_time:
            return None
        job, place = work.job, task - work.shard.first_task
        with self._meter.checking():
            run = self._engine.run([work.task(place)], nan=job.nan, layout="solo", constants=job.constants)
            alone = work.stored(next(iter(run)))
        seen = work.kept(place)
        if any(isinstance(one, TaskError) and one.node is None for one in (seen, alone)):
            return None
        return judge.compare(task, _values(seen), _values(alone))


def _values(outcome: Values | TaskError) -> Values | None:
    return None if isinstance(outcome, TaskError) else outcome
