"""Reads the tensors that a job binds and earlier jobs have saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ndif_batch.archive import Results
from ndif_batch.errors import NotFoundError
from ndif_batch.queue.records import JobRecord


@dataclass(frozen=True, slots=True)
class Prerequisites:
    """``find`` gives the record of the second job, if the first comes after it and may read what it saved."""

    find: Callable[[int, int], JobRecord | None]

    def tensors(self, job: JobRecord) -> dict[str, Any]:
        """By digest, on the CPU, in the dtypes in which they were saved; ``NotFoundError`` if the results are gone."""
        found = {}
        for digest, source in job.options.get("saved", {}).items():
            earlier = self.find(job.id, source["job"])
            if earlier is None:
                raise NotFoundError(
                    f"the results of job {source['job']}, of which {source['save']!r} is bound, are gone"
                )
            found[digest] = Results(earlier.store).torch(source["save"])
        return found
