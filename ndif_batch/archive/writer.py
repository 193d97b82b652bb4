"""Writes the shards of a tile, each whole and durable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive import files
from ndif_batch.archive.group import MANIFEST
from ndif_batch.archive.layout import Layout, layouts
from ndif_batch.archive.spec import STATUS, ArchiveSpec, ArraySpec, TaskStatus
from ndif_batch.archive.store import encode_shard, is_empty
from ndif_batch.errors import NotFoundError, ShapeError, UsageError

Value: TypeAlias = "np.ndarray[Any, Any] | None"


def write_shard(
    path: Path, spec: ArchiveSpec, first_task: int, values: Mapping[str, Sequence[Value]], status: Sequence[int]
) -> None:
    """Write one tile: a whole Zarr shard of each array, ``task_status`` last.

    ``values[name][k]`` is what task ``first_task + k`` saved (its own shape, without axes) or ``None``, and
    ``status[k]`` what became of it. Writing again replaces what is there. Raises ``UsageError`` when the tasks are
    not one tile, ``ShapeError`` for a value that its array cannot take, ``UnavailableError`` when the disk cannot.
    """
    if not (path / STATUS).is_dir():
        raise NotFoundError(f"there is no archive at {path}")
    index = spec.grid.index(first_task, len(status))
    if not set(status) <= set(TaskStatus):
        raise UsageError(f"unknown task status among {sorted(set(status))}")
    extent = spec.grid.extent(index)
    files.remove_file(path / MANIFEST)
    layout_of = layouts(spec)
    for name, column in _columns(spec, layout_of, first_task, values, status):
        layout = layout_of[name]
        if not is_empty(layout):
            tile = column.reshape((*extent, *column.shape[1:]))
            files.write_file(path / name / layout.key(index), encode_shard(layout, tile))


def _columns(
    spec: ArchiveSpec,
    layout_of: Mapping[str, Layout],
    first_task: int,
    values: Mapping[str, Sequence[Value]],
    status: Sequence[int],
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Each array's name and its values [tasks, own dimensions], in the order in which they are written."""
    for array in spec.arrays:
        column = values.get(array.name, ())
        if len(column) != len(status):
            raise UsageError(f"save {array.name!r} has {len(column)} values for {len(status)} tasks")
        yield array.name, _padded(array, layout_of[array.name], first_task, column)
        for name, own in array.lengths.items():
            yield name, np.array([0 if value is None else np.shape(value)[own] for value in column], dtype=np.int32)
    yield STATUS, np.array(status, dtype=np.uint8)


def _padded(array: ArraySpec, layout: Layout, first_task: int, column: Sequence[Value]) -> np.ndarray[Any, Any]:
    padded = np.full((len(column), *array.shape), layout.fill, dtype=array.dtype)
    for k, value in enumerate(column):
        if value is not None:
            _check_value(array, first_task + k, value)
            region: tuple[int | slice, ...] = (k, *(slice(length) for length in value.shape))
            padded[region] = value
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
