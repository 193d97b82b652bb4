"""Single tasks out of an archive: what became of each, and what it saved, in its own shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive.integrity import DAMAGE
from ndif_batch.archive.results import Results
from ndif_batch.archive.spec import TaskStatus
from ndif_batch.archive.store import open_array
from ndif_batch.errors import IntegrityError

_Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, slots=True)
class SavedTask:
    """A task that has its outcome. ``saves`` are empty if it failed; bfloat16 is float32, ragged saves are cut."""

    id: int
    status: TaskStatus
    saves: Mapping[str, _Array]


def completed(results: Results, told: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[SavedTask]:
    """The tasks that have their outcome, in order, without those that are ``told`` [tasks], where they are noted.

    Those that were never to run are noted and not given.

    A tile is read at once; ``IntegrityError`` for a damaged one.
    """
    status = results.status().reshape(-1)
    for index in results.grid.indices():
        tasks = results.grid.tasks(index)
        new = np.flatnonzero((status[tasks.start : tasks.stop] != TaskStatus.WAITING) & ~told[tasks.start : tasks.stop])
        if not len(new):
            continue
        try:
            rows = _Rows(results, index) if np.any(_has_saves(status[tasks.start + new])) else None
        except DAMAGE as error:
            span = f"tasks {tasks.start} to {tasks.stop - 1}"
            raise IntegrityError(
                f"the results of {span} in {results.place} are damaged: {error}", hint="`ndif-batch results verify`"
            ) from error
        for k in new.tolist():
            task = tasks.start + k
            told[task] = True
            became = TaskStatus(int(status[task]))
            if became is TaskStatus.EXCLUDED:
                continue
            yield SavedTask(task, became, rows.saves(k) if rows and _has_saves(status[task]) else {})


class _Rows:
    """What the tasks of one tile saved: each array as [tasks, its own dimensions]."""

    def __init__(self, results: Results, index: tuple[int, ...]) -> None:
        region: tuple[Any, ...] = results.grid.region(index)
        self._arrays = results.arrays
        count = len(results.grid.tasks(index))
        names = [name for array in self._arrays.values() for name in (array.name, *array.lengths)]
        found = {name: np.asarray(open_array(results.place, name)[(*region, ...)]) for name in names}
        self._rows = {name: values.reshape((count, *values.shape[len(region) :])) for name, values in found.items()}

    def saves(self, k: int) -> dict[str, _Array]:
        """What the task in row ``k`` saved, without what pads it to the longest."""
        saves = {}
        for name, array in self._arrays.items():
            cut = [slice(None)] * len(array.dims)
            for length, own in array.lengths.items():
                cut[own] = slice(int(self._rows[length][k]))
            value = self._rows[name][k][tuple(cut)]
            saves[name] = value == 1 if array.source_dtype == "bool" else value
        return saves


def _has_saves(status: Any) -> Any:
    return np.isin(status, (TaskStatus.SAVED, TaskStatus.REUSED))
