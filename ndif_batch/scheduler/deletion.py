"""Deletes the results that their users gave up and could not delete themselves."""

from __future__ import annotations

import structlog

from ndif_batch.errors import NdifBatchError
from ndif_batch.queue import Queue

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def delete_given_up(queue: Queue) -> None:
    """Delete what is given up; what cannot be deleted is left to the next time."""
    for job in queue.given_up():
        from ndif_batch.archive import remove

        try:
            remove(job.store)
        except NdifBatchError as error:
            log.warning("results.stay", job=job.id, reason=error.message)
        else:
            queue.results_deleted(job.id)
            log.info("results.deleted", job=job.id, bytes=job.archive_bytes)
