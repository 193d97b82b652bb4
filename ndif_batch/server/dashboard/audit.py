"""The page that tells what happened, by whom and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from ndif_batch.errors import UsageError, nearest
from ndif_batch.queue.figures import EventFilter
from ndif_batch.queue.records import EventKind
from ndif_batch.server.dashboard.visit import Visit

PAGE = 100
FILTERS = ("actor", "kind", "all")
HIDDEN = ("reason",)


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    asked = {name: visit.asked(name) for name in FILTERS}
    by_people = asked["all"] is None and asked["actor"] is None
    wanted = EventFilter(actor=asked["actor"], kind=_kind(asked["kind"]), by_people=by_people)
    before = visit.number("before")
    found = visit.queue.find_events(wanted, PAGE + 1, before)
    words = {name: word for name, word in asked.items() if word is not None}
    return {
        "now": visit.queue.queue.now(),
        "asked": asked,
        "events": found[:PAGE],
        "hidden": HIDDEN,
        "kinds": [kind.value for kind in EventKind],
        "before": before,
        "first_page": "?" + urlencode(words),
        "next_page": "?" + urlencode({**words, "before": found[PAGE - 1].id}) if len(found) > PAGE else None,
    }


def _kind(text: str | None) -> EventKind | None:
    try:
        return None if text is None else EventKind(text)
    except ValueError:
        raise UsageError(f"there is no kind of event {text!r}", hint=nearest(text or "", map(str, EventKind))) from None
