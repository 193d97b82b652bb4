"""Removes what writers that died left in archives: of every job that ends, whichever way, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from ndif_batch.queue import Queue

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

    def tidy(self, queue: Queue) -> None:
        """Clean the archives of some more jobs. What cannot be removed stays, and is logged."""
        from ndif_batch.archive import clean

        now = queue.now()
        ended = queue.ended_between(self.until or now - LOOKS_BACK, now - REST, AT_ONCE)
        for job in ended:
            try:
                left = clean(job.store, older_than=REST.total_seconds())
            except OSError as error:
                log.warning("archive.untidy", job=job.id, reason=str(error))
            else:
                if left:
                    log.info("archive.tidied", job=job.id, files=len(left))
            self.until = job.finished_at
