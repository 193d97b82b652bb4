"""A job's parameter space as a picture that a browser draws: where each task stands, and what it saved once it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive import Results
from ndif_batch.archive.spec import TaskStatus
from ndif_batch.client.panels import as_numbers, short_label
from ndif_batch.client.picture import DIVERGING, SEQUENTIAL, Axis, Picture
from ndif_batch.queue.records import JobRecord, ShardRecord, ShardState
from ndif_batch.sweep.space import Space

MOST = 160
"""Places drawn along a dimension; of more, every second, third, … is."""

States: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"


class Cell(IntEnum):
    """Where a task stands, as the browser is told it."""

    WAITING = 0
    LEASED = 1
    DONE = 2
    FAILED = 3
    CANCELLED = 4
    EXCLUDED = 5


_OF_SHARD: Mapping[ShardState, Cell] = {
    ShardState.PENDING: Cell.WAITING,
    ShardState.LEASED: Cell.LEASED,
    ShardState.DONE: Cell.DONE,
    ShardState.FAILED: Cell.FAILED,
    ShardState.CANCELLED: Cell.CANCELLED,
}
_OF_TASK: Mapping[TaskStatus, Cell] = {
    TaskStatus.SAVED: Cell.DONE,
    TaskStatus.REUSED: Cell.DONE,
    TaskStatus.FAILED: Cell.FAILED,
    TaskStatus.EXCLUDED: Cell.EXCLUDED,
}


@dataclass(frozen=True, slots=True)
class View:
    """Which part of a space is drawn: two axes, the others at one place each. ``fixed`` has these by axis."""

    rows: str | None
    columns: str | None
    fixed: Mapping[str, int]

    @classmethod
    def of(cls, space: Space, places: Mapping[str, int]) -> View:
        """The two longest axes in their order, the others where ``places`` says, else at their beginning."""
        longest = sorted(space.axes, key=len, reverse=True)[:2]
        names = [axis.name for axis in space.axes if axis in longest]
        rows, columns = (names[0], names[1]) if len(names) == 2 else (None, names[0] if names else None)
        others = {axis.name: len(axis) for axis in space.axes if axis.name not in names}
        return cls(rows, columns, {name: min(places.get(name, 0), size - 1) for name, size in others.items()})


def scalars(record: JobRecord) -> list[str]:
    """The saves of a job that are one number a task: those that can be drawn."""
    return [array["name"] for array in record.arrays if not array["dims"] and "reduce" not in array]


def drawn(
    record: JobRecord,
    shards: Sequence[ShardRecord],
    results: Results | None,
    save: str | None,
    places: Mapping[str, int],
) -> dict[str, Any]:
    """The picture as JSON. ``save`` is whose values are drawn where there are some; None draws states alone."""
    space = Space.from_json(record.space)
    view = View.of(space, places)
    index, steps = _index(space, view)
    cells = _cells(space, shards, results)[index]
    values = _values(results, save, space, index) if results is not None and save is not None else None
    shown = Picture(save or "", np.zeros(0) if values is None else values, ())
    low, high = shown.limits
    return {
        "rows": _axis(space, view.rows, steps[0]),
        "columns": _axis(space, view.columns, steps[1]),
        "cells": np.atleast_2d(cells).tolist(),
        "values": None if values is None else _finite(np.atleast_2d(values)),
        "low": low,
        "high": high,
        "colours": DIVERGING if shown.signed else SEQUENTIAL,
        "save": save,
        "steps": steps,
    }


def _index(space: Space, view: View) -> tuple[tuple[slice | int, ...], tuple[int, int]]:
    """What is taken along each axis, and every how many-th place of rows and columns."""
    lengths = {axis.name: len(axis) for axis in space.axes}
    steps = {name: max(1, ceil(lengths[name] / MOST)) for name in (view.rows, view.columns) if name is not None}
    index = tuple(slice(None, None, steps[n]) if n in steps else view.fixed[n] for n in lengths)
    return index, (steps.get(view.rows or "", 1), steps.get(view.columns or "", 1))


def _cells(space: Space, shards: Sequence[ShardRecord], results: Results | None) -> States:
    """Where each task stands: as its shard does, and as the archive knows better."""
    cells = np.zeros(space.size, dtype=np.uint8)
    for shard in shards:
        cells[shard.first_task : shard.first_task + shard.tasks] = _OF_SHARD[shard.state]
    if results is not None:
        status = results.status().reshape(-1)
        for known, cell in _OF_TASK.items():
            cells[status == known] = cell
    excluded = space.excluded()
    if excluded is not None:
        cells[excluded] = Cell.EXCLUDED
    return cells.reshape(space.shape)


def _values(results: Results, save: str, space: Space, index: tuple[slice | int, ...]) -> Any:
    if save not in results:
        return None
    data = results.xarray()[save]
    return as_numbers(data.isel(dict(zip(data.dims, index, strict=True))))


def _finite(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[float | None]]:
    """Rows for JSON, which has no NaN; to six digits."""
    return [[float(f"{value:.6g}") if np.isfinite(value) else None for value in row] for row in values]


def _axis(space: Space, name: str | None, step: int) -> dict[str, Any] | None:
    if name is None:
        return None
    axis = next(one for one in space.axes if one.name == name)
    values = next(iter(axis.columns.values()))
    shown = Axis(name, [short_label(_plain(value)) for value in values[::step]])
    return {"name": shown.name, "labels": list(shown.labels)}


def _plain(value: Any) -> Any:
    return f"{len(value)} tokens" if isinstance(value, tuple) else value
