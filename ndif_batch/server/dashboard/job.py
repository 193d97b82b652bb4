"""The page of one job: how far it is over its parameter space, what it saved, what failed where, and its story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ndif_batch.archive.verified import in_words
from ndif_batch.graph.serialize import graph_from_json
from ndif_batch.graph.text import to_text
from ndif_batch.queue.reasons import Standing, explained, waiting_reason
from ndif_batch.queue.records import EventKind, EventRecord, JobRecord, JobState, TaskFailure
from ndif_batch.queue.states import JOB
from ndif_batch.server.dashboard import graph_picture, parameter_grid
from ndif_batch.server.dashboard.form import LONGEST_NUMBER
from ndif_batch.server.dashboard.visit import Visit
from ndif_batch.sweep.space import Space

FAILURES = 1000
STORY = 1000
PILOTS = 100
PLACE = "at."
"""What the query says before the name of an axis."""

VERBS: Mapping[EventKind, str] = {
    EventKind.JOB_HELD: "hold",
    EventKind.JOB_RELEASED: "release",
    EventKind.JOB_RETRIED: "retry",
    EventKind.JOB_CANCELLED: "cancel",
}


@dataclass(frozen=True, slots=True)
class Chapter:
    """Events of one kind that followed each other, told together."""

    at: datetime
    kind: EventKind
    actor: str
    count: int
    detail: str


@dataclass(frozen=True, slots=True)
class NodeFailures:
    """The failed tasks of one node and code, with the first that failed so."""

    node: int | None
    code: str
    tasks: int
    first: TaskFailure
    bound: str


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    record = visit.job()
    shards, failures = queue.shards(record.id), queue.failures(record.id, FAILURES)
    events = queue.events(record.id, STORY)
    standing = Standing.of(queue, queue.live_workers())
    space, graph = Space.from_json(record.space), graph_from_json(record.graph)
    by_node = Counter(one.node for one in failures if one.node is not None)
    workers = {event.worker_id for event in events if event.worker_id is not None}
    view = parameter_grid.View.of(space, _places(visit))
    return {
        "title": record.name,
        "now": queue.queue.now(),
        "job": record,
        "space": space,
        "axes": {axis.name: len(axis) for axis in space.axes},
        "fixed": view.fixed,
        "saves": parameter_grid.scalars(record),
        "save": _save(visit, record),
        "grid": f"jobs/{record.id}/grid?{visit.request.url.query}",
        "shards": Counter(shard.state for shard in shards),
        "why": explained(waiting_reason(record, standing, shards), record, standing),
        "verified": in_words(queue.verified(record.id)),
        "failures": _by_node(failures, space),
        "most_failures": FAILURES,
        "story": chapters(events),
        "drawing": graph_picture.draw(graph, by_node),
        "text": to_text(graph),
        "pilots": [one for one in queue.newest_pilots([record.model], PILOTS) if one.worker_id in workers],
        "verbs": {verb for kind, verb in VERBS.items() if record.state in JOB[kind].sources},
        "results": record.removed_at is None and record.tasks_done > 0,
        "mine": record.user == visit.me.user,
        "over": record.state.final,
        "can_retry": record.state in (JobState.FAILED, JobState.CANCELLED) and record.tasks_failed > 0,
    }


def grid(visit: Visit) -> dict[str, Any]:
    """The picture of the job's parameter space."""
    queue = visit.queue
    record = visit.job()
    results = None if record.removed_at is not None else queue.open_results(record)
    return parameter_grid.drawn(record, queue.shards(record.id), results, _save(visit, record), _places(visit))


def chapters(events: Sequence[EventRecord]) -> list[Chapter]:
    """The story, the newest first."""
    told: list[Chapter] = []
    for event in reversed(events):
        detail = str(event.detail.get("reason") or event.detail.get("code") or "")
        last = told[-1] if told else None
        actor = "workers" if event.actor.startswith("worker ") else event.actor
        if last is not None and (last.kind, last.actor, last.detail) == (event.kind, actor, detail):
            told[-1] = Chapter(last.at, last.kind, actor, last.count + 1, detail)
        else:
            told.append(Chapter(event.at, event.kind, actor, 1, detail))
    return told


def _save(visit: Visit, record: JobRecord) -> str | None:
    """Whose values are drawn: what is asked for, the first unless told; ``-`` asks for states alone."""
    known = parameter_grid.scalars(record)
    asked = visit.asked("save")
    if asked == "-":
        return None
    return asked if asked in known else next(iter(known), None)


def _places(visit: Visit) -> dict[str, int]:
    query = visit.request.query_params
    return {
        name.removeprefix(PLACE): int(value)
        for name, value in query.items()
        if name.startswith(PLACE) and value.isdecimal() and len(value) <= LONGEST_NUMBER
    }


def _by_node(failures: Sequence[TaskFailure], space: Space) -> list[NodeFailures]:
    groups: dict[tuple[int | None, str], list[TaskFailure]] = {}
    for one in failures:
        groups.setdefault((one.node, one.code), []).append(one)
    varied = {param for axis in space.axes for param in axis.columns}
    return sorted(
        (
            NodeFailures(node, code, len(ones), ones[0], _bound(space, ones[0].task, varied))
            for (node, code), ones in groups.items()
        ),
        key=lambda group: -group.tasks,
    )


def _bound(space: Space, task: int, varied: set[str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in space.bindings(task).items() if name in varied)
