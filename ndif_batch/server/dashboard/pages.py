"""The pages that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ndif_batch.server.dashboard import archive, audit, job, jobs, models, overview, people, slurm, system, workers
from ndif_batch.server.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its path, what it reads, and whether it is ``for_all``, shown to those only who see everybody's jobs.

    One that is not listed among the others belongs to the page ``under`` which it is.
    """

    name: str
    title: str
    path: str
    read: Callable[[Visit], Mapping[str, Any]]
    for_all: bool = False
    under: str | None = None

    @property
    def template(self) -> str:
        """The template's file."""
        return f"{self.name}.html"


PAGES = (
    Page("overview", "Overview", "/", overview.read),
    Page("jobs", "Jobs", "/jobs", jobs.read),
    Page("models", "Models", "/models", models.read),
    Page("workers", "Workers", "/workers", workers.read),
    Page("slurm", "Slurm", "/slurm", slurm.Slurm().read),
    Page("archive", "Archive", "/archive", archive.read),
    Page("people", "Users and tokens", "/people", people.read),
    Page("audit", "Audit", "/audit", audit.read, for_all=True),
    Page("system", "System", "/system", system.read, for_all=True),
    Page("job", "Job", "/jobs/{job:int}", job.read, under="jobs"),
)
