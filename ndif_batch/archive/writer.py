"""Writes the shards of a tile, each whole and durable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive import files
from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.encoding import Read, Region, encoded
from ndif_batch.archive.group import MANIFEST
from ndif_batch.archive.layout import Layout, layouts
from ndif_batch.archive.spec import STATUS, ArchiveSpec, TaskStatus
from ndif_batch.archive.store import is_empty
from ndif_batch.errors import NotFoundError, ShapeError, UsageError

Value: TypeAlias = "np.ndarray[Any, Any] | None"
State: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def write_shard(
    path: Path,
    spec: ArchiveSpec,
    first_task: int,
    values: Mapping[str, Sequence[Value]],
    status: Sequence[int],
    states: Mapping[str, State] | None = None,
) -> None:
    """Write one tile: a whole Zarr shard of each array, ``task_status`` last.

    ``values[name][k]`` is what task ``first_task + k`` saved (its own shape, without axes) or ``None``, and
    ``status[k]`` what became of it; ``states`` has for each statistic what the tile's tasks give
    (:meth:`ndif_batch.archive.accumulating.Accumulator.state`). Writing again replaces what is there. Raises
    ``UsageError`` when the tasks are not one tile, ``ShapeError`` for a value that its array cannot take,
    ``UnavailableError`` when the disk cannot.
    """
    if not (path / STATUS).is_dir():
        raise NotFoundError(f"there is no archive at {path}")
    index = spec.grid.index(first_task, len(status))
    if not set(status) <= set(TaskStatus):
        raise UsageError(f"unknown task status among {sorted(set(status))}")
    extent = spec.grid.extent(index)
    layout_of = layouts(spec)
    columns = [*_partials(spec, index, states or {}), *_columns(spec, layout_of, extent, first_task, values, status)]
    files.remove_file(path / MANIFEST)
    for name, whole, read in columns:
        layout = layout_of[name]
        if not is_empty(layout):
            files.write_file(path / name / layout.key(index), encoded(layout, whole, read))


def _partials(
    spec: ArchiveSpec, index: tuple[int, ...], states: Mapping[str, State]
) -> Iterator[tuple[str, tuple[int, ...], Read]]:
    for reduced in spec.reduced:
        state = states.get(reduced.name)
        expected = (*reduced.grid(spec.grid, spec.dims).extent(index), reduced.state_size)
        if state is None or state.shape != expected:
            raise UsageError(f"statistic {reduced.name!r} has no state of shape {expected}")
        yield reduced.partial, expected, state.__getitem__


def _columns(
    spec: ArchiveSpec,
    layout_of: Mapping[str, Layout],
    extent: tuple[int, ...],
    first_task: int,
    values: Mapping[str, Sequence[Value]],
    status: Sequence[int],
) -> Iterator[tuple[str, tuple[int, ...], Read]]:
    """Each array's name, what the tile has of it and its values, in the order in which they are written."""
    for array in spec.arrays:
        column = values.get(array.name, ())
        if len(column) != len(status):
            raise UsageError(f"save {array.name!r} has {len(column)} values for {len(status)} tasks")
        there = [(k, value) for k, value in enumerate(column) if value is not None]
        firsts = {(value.shape, value.dtype): (k, value) for k, value in reversed(there)}
        for k, value in sorted(firsts.values(), key=lambda first: first[0]):
            _check_value(array, first_task + k, value)
        yield array.name, (*extent, *array.shape), partial(_padded, layout_of[array.name], extent, column)
        for name, own in array.lengths.items():
            lengths = [0 if value is None else np.shape(value)[own] for value in column]
            yield name, extent, np.array(lengths, dtype=np.int32).reshape(extent).__getitem__
    yield STATUS, extent, np.array(status, dtype=np.uint8).reshape(extent).__getitem__


def _padded(layout: Layout, extent: tuple[int, ...], column: Sequence[Value], region: Region) -> np.ndarray[Any, Any]:
    """A part of what the tasks of a tile saved, filled up where a value is shorter or missing."""
    axes, own = region[: len(extent)], region[len(extent) :]
    padded = np.full([part.stop - part.start for part in region], layout.fill, dtype=layout.dtype)
    rows = padded.reshape(-1, *padded.shape[len(axes) :])
    tasks = np.arange(prod(extent)).reshape(extent)[axes]
    for k, task in enumerate(tasks.ravel().tolist()):
        value = column[task]
        if value is not None:
            there = value[own]
            cut: tuple[Any, ...] = (k, *map(slice, there.shape))
            rows[cut] = there
    return padded


def _check_value(array: ArraySpec, task: int, value: np.ndarray[Any, Any]) -> None:
    fits = value.ndim == len(array.shape) and all(
        length <= longest if own in array.ragged else length == longest
        for own, (length, longest) in enumerate(zip(value.shape, array.shape, strict=True))
    )
    if not fits:
        raise ShapeError(f"task {task} saved {array.name!r} as {value.shape}, its array holds {array.shape}")
    if not np.can_cast(value.dtype, array.dtype, "same_kind"):
        raise ShapeError(f"task {task} saved {array.name!r} as {value.dtype}, its array holds {array.dtype}")
