"""How a job looks in a notebook: its progress, what failed, and a picture of what it has saved so far."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ndif_batch.client.svg import svg
from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.queue.records import JobRecord

if TYPE_CHECKING:
    from ndif_batch.archive import Results
    from ndif_batch.client.handle import JobHandle
    from ndif_batch.client.picture import Picture

SHOWN_FAILURES = 3
DRAWN_AXES = 2
"""The first two axes of a job are drawn, as its user named them, with the mean over the others."""

MOST_VALUES = 2**20
"""A picture is drawn of at most so many tasks: every look reads them all."""


class Live:
    """Shows a job anew whenever it has gone on: in place in a notebook, line by line on stderr elsewhere."""

    def __init__(self, job: JobHandle, save: str | None) -> None:
        self._job = job
        self._save = save
        self._seen: object = None
        self._place: Any = None

    def look(self, record: JobRecord) -> None:
        """Show ``record``, if it differs from what is shown."""
        seen = (record.state, record.tasks_done, record.tasks_failed)
        if seen == self._seen:
            return
        self._seen = seen
        if not in_notebook():
            print(repr(self._job), file=sys.stderr)
            return
        show = import_module("IPython.display")
        shown = _Shown(page(self._job, self._save), repr(self._job))
        if self._place is None:
            self._place = show.display(shown, display_id=True)
        else:
            self._place.update(shown)


@dataclass(frozen=True, slots=True, repr=False)
class _Shown:
    """A page, and its words for readers of a notebook that show no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def in_notebook() -> bool:
    """Whether what is displayed can be replaced: IPython runs this process, with a front end beside it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def page(job: JobHandle, save: str | None) -> str:
    """The job as HTML; ``UsageError`` for a ``save`` that is not a single number."""
    return f"<div>{''.join(_parts(job, save))}</div>"


def _parts(job: JobHandle, save: str | None) -> Iterator[str]:
    record = job.record
    ended = record.tasks_done + record.tasks_failed
    yield f"<b>job {record.id} · {escape(record.name)}</b> · {record.state}<br>"
    yield f'<progress value="{ended}" max="{record.tasks}" style="width:20em"></progress> '
    failed = f", {record.tasks_failed:,} failed" if record.tasks_failed else ""
    yield f"{record.tasks_done:,} of {record.tasks:,} tasks{failed} · {escape(record.model)}"
    if record.reason:
        yield f"<br>{escape(record.reason)}"
    if record.tasks_failed:
        rows = (f"<li>task {one.task}: {escape(one.message)}</li>" for one in job.failures(SHOWN_FAILURES))
        yield f"<ul>{''.join(rows)}</ul>"
    picture = _picture(job, save)
    if picture is not None:
        yield f"<br>{svg(picture)}"


def _picture(job: JobHandle, save: str | None) -> Picture | None:
    """What is saved so far; None if there is nothing yet, or nothing that is a single number."""
    from ndif_batch.client.panels import as_numbers, panels

    if job.record.removed_at is not None or job.record.tasks > MOST_VALUES:
        return None
    try:
        results = job.results()
    except NotFoundError:
        return None
    name = _chosen(results, save)
    if name is None:
        return None
    data = results.xarray()[name].squeeze()
    beside = [str(dim) for dim in data.dims[DRAWN_AXES:]]
    if beside:
        data, name = data.copy(data=as_numbers(data)).mean(beside), f"{name}, mean over {', '.join(beside)}"
    return panels(data, name, results.attributes.get("tokens"), 1).pictures[0]


def _chosen(results: Results, save: str | None) -> str | None:
    numbers = [name for name in results if not results.array_of(name).dims]
    if save is not None and save not in numbers:
        raise UsageError(f"{save!r} is not a single number of each task", hint=f"one of {', '.join(numbers)}")
    return save or next(iter(numbers), None)
