"""Puts archives in order that writers which died left: of every job that ends, whichever way, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Thread

import structlog

from ndif_batch.errors import NdifBatchError
from ndif_batch.queue import Queue
from ndif_batch.queue.records import JobRecord, JobState, Json

log: structlog.stdlib.BoundLogger = structlog.get_logger()

REST = timedelta(hours=1)
"""So long after its job's end nobody writes to an archive, and what nobody touched for so long is left over."""

LOOKS_BACK = timedelta(days=7)
"""A new scheduler looks at jobs that ended in so long before it began."""

AT_ONCE = 50


@dataclass(slots=True)
class Janitor:
    """Looks at ended jobs in the order in which they ended; ``until`` is the end of the last that it has looked at."""

    until: datetime | None = None
    finishing: Thread | None = None

    def tidy(self, queue: Queue) -> None:
        """Clean the archives of some more jobs. What cannot be done is logged.

        Those that nobody has finished are finished in a thread of its own, since they may be large; others wait for it.
        """
        if self.finishing is not None and self.finishing.is_alive():
            return
        now = queue.now()
        ended = queue.ended_between(self.until or now - LOOKS_BACK, now - REST, AT_ONCE)
        for job in ended:
            _clean(job)
            self.until = job.finished_at
        unfinished = [(job, queue.verified(job.id).to_json()) for job in ended if _is_unfinished(job)]
        if unfinished:
            self.finishing = Thread(target=_finish, args=(unfinished,), name="janitor", daemon=True)
            self.finishing.start()

    def wait(self) -> None:
        """Returns when nothing is being finished."""
        if self.finishing is not None:
            self.finishing.join()


def _clean(job: JobRecord) -> None:
    from ndif_batch.archive import clean

    try:
        left = clean(job.store, older_than=REST.total_seconds())
    except OSError as error:
        log.warning("archive.untidy", job=job.id, reason=str(error))
    else:
        if left:
            log.info("archive.tidied", job=job.id, files=len(left))


def _is_unfinished(job: JobRecord) -> bool:
    """Whether the archive has no manifest, and was to get one."""
    from ndif_batch.archive.group import MANIFEST

    return job.state is not JobState.CANCELLED and job.store.is_dir() and not (job.store / MANIFEST).exists()


def _finish(jobs: Sequence[tuple[JobRecord, Json]]) -> None:
    """Give the archives their manifests, and what is known of their verification."""
    from ndif_batch.archive import finish

    for job, verified in jobs:
        try:
            finish(job.store, {"verified": verified, "state": job.state.value})
        except NdifBatchError as error:
            log.warning("archive.unfinished", job=job.id, reason=error.message)
        else:
            log.info("archive.finished", job=job.id)
