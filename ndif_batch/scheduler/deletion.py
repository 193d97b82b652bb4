"""Deletes the results that have been kept as long as asked, and those that their users could not delete themselves."""

from __future__ import annotations

import structlog

from ndif_batch.errors import NdifBatchError
from ndif_batch.queue import Queue

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def expire(queue: Queue, actor: str) -> None:
    """Give up what has been kept as long as its user or the settings asked; :func:`delete_given_up` deletes it."""
    for job_id in queue.expire_results(actor):
        log.info("results.expired", job=job_id)


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
