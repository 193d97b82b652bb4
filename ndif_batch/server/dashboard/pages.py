"""The pages that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ndif_batch.server.dashboard import jobs, overview
from ndif_batch.server.dashboard.visit import Visit


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its path, what it reads, and whether it is ``for_all``, shown to those only who see everybody's jobs."""

    name: str
    title: str
    path: str
    read: Callable[[Visit], Mapping[str, Any]]
    for_all: bool = False
    listed: bool = True

    @property
    def template(self) -> str:
        """The template's file."""
        return f"{self.name}.html"


PAGES = (
    Page("overview", "Overview", "/", overview.read),
    Page("jobs", "Jobs", "/jobs", jobs.read),
)
