"""The list of jobs: filtered, page after page, each with why it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from ndif_batch.errors import UsageError
from ndif_batch.queue.figures import JobFilter
from ndif_batch.queue.reasons import Standing, waiting_reason
from ndif_batch.queue.records import JobRecord, JobState
from ndif_batch.server.dashboard.overview import by_state
from ndif_batch.server.dashboard.visit import Visit

PAGE = 50
FILTERS = ("state", "user", "model", "name")


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in the list, and why it waits or how it ended."""

    job: JobRecord
    reason: str


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    asked = {name: visit.asked(name) for name in FILTERS}
    before = visit.number("before")
    wanted = JobFilter(user=asked["user"], state=state(asked["state"]), model=asked["model"], name=asked["name"])
    found = queue.find_jobs(wanted, PAGE + 1, before)
    figures = queue.job_figures(asked["user"])
    return {
        "now": queue.queue.now(),
        "asked": asked,
        "lines": lines(visit, found[:PAGE]),
        "states": by_state(figures),
        "models": [model.name for model in queue.models()],
        "users": [user.name for user in queue.users()] if visit.me.sees_all else [],
        "before": before,
        "first_page": _link(asked, None),
        "next_page": _link(asked, found[PAGE - 1].id) if len(found) > PAGE else None,
    }


def state(text: str | None) -> JobState | None:
    """``UsageError`` for a word that is no state."""
    try:
        return None if text is None else JobState(text)
    except ValueError:
        raise UsageError(f"there is no state {text!r}", hint=", ".join(JobState)) from None


def lines(visit: Visit, jobs: Sequence[JobRecord]) -> list[JobLine]:
    """The jobs, each with its reason."""
    standing = Standing.of(visit.queue, visit.queue.live_workers())
    return [JobLine(job, waiting_reason(job, standing)) for job in jobs]


def _link(asked: Mapping[str, str | None], before: int | None) -> str:
    words = {name: word for name, word in asked.items() if word is not None}
    return "?" + urlencode(words | ({} if before is None else {"before": before}))
