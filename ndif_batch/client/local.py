"""The queue in a database together with the archives that lie on this host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ndif_batch.errors import NotAllowedError
from ndif_batch.queue import Queue

if TYPE_CHECKING:
    from ndif_batch.archive import Results
    from ndif_batch.queue.records import JobRecord


class LocalQueue(Queue):
    """A :class:`~ndif_batch.queue.api.ClientQueue`: what a queue knows, and what its jobs saved."""

    def with_results(self, job_ids: Sequence[int] = ()) -> list[int]:
        """Those of the jobs that have results to read."""
        records = map(self.job, job_ids)
        return [record.id for record in records if record.removed_at is None and record.store.is_dir()]

    def open_results(self, record: JobRecord) -> Results | None:
        """What a job saved so far; None if there is nothing yet."""
        from ndif_batch.archive import Results

        return Results(record.store) if record.store.is_dir() else None

    def remove_results(self, job_id: int, actor: str) -> bool:
        """Delete what an ended job saved; False if the files are another account's: the scheduler then deletes them."""
        from ndif_batch.archive import remove

        record = self.give_up_results(job_id, actor)
        try:
            remove(record.store)
        except NotAllowedError:
            return False
        self.results_deleted(job_id)
        return True
