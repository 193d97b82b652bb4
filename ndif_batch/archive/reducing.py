"""The statistics of a job from what its shards have kept: read while it runs, written when it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive import files
from ndif_batch.archive.encoding import encoded
from ndif_batch.archive.grid import Grid
from ndif_batch.archive.layout import reduced_layouts, shard_key
from ndif_batch.archive.reduction import ReducedSpec
from ndif_batch.archive.remote import RemotePath
from ndif_batch.archive.statistics import State, merged, results
from ndif_batch.archive.store import is_empty, open_array

_Array: TypeAlias = "np.ndarray[Any, Any]"
Index: TypeAlias = tuple[int, ...]


def write_reduced(path: Path, reduced: Sequence[ReducedSpec], tasks: Grid, axes: Sequence[str]) -> None:
    """Write the arrays of every statistic, whole and durable, from what the shards that are there have kept."""
    for one in reduced:
        arrays = reduced_layouts(one, tasks, axes)
        for index, found in reductions(path, one, tasks, axes):
            for name, values in found.items():
                layout = arrays[name]
                if not is_empty(layout):
                    read = values.__getitem__
                    file = path / name / shard_key(index, len(layout.shape))
                    files.write_file(file, encoded(layout, values.shape, read))


def read_reduced(path: Path | RemotePath, reduced: ReducedSpec, tasks: Grid, axes: Sequence[str]) -> dict[str, _Array]:
    """The whole arrays of one statistic, of the shards that are there by now."""
    grid = reduced.grid(tasks, axes)
    kept = [at for at, name in enumerate(axes) if name not in reduced.axes]
    whole: dict[str, _Array] = {}
    for index, found in reductions(path, reduced, tasks, axes):
        for name, values in found.items():
            shape = (*(grid.shape[at] for at in kept), *values.shape[len(kept) :])
            array = whole.setdefault(name, np.empty(shape, values.dtype))
            array[
                tuple(slice(k * grid.tile[at], (k + 1) * grid.tile[at]) for at, k in zip(kept, index, strict=True))
            ] = values
    return whole


def reductions(
    path: Path | RemotePath, reduced: ReducedSpec, tasks: Grid, axes: Sequence[str]
) -> Iterator[tuple[Index, dict[str, _Array]]]:
    """The arrays of a statistic, tile by tile of the axes that stay, each with its place among these.

    The shards of a tile are put together in the order of their tasks.
    """
    grid = reduced.grid(tasks, axes)
    counts = [-(-length // cut) for length, cut in zip(grid.shape, grid.tile, strict=True)]
    is_kept = [name not in reduced.axes for name in axes]
    partial = open_array(path, reduced.partial)
    for index in product(*(range(n) for n, kept in zip(counts, is_kept, strict=True) if kept)):
        state: State | None = None
        for along in product(*(range(n) for n, kept in zip(counts, is_kept, strict=True) if not kept)):
            here, there = iter(index), iter(along)
            place = tuple(next(here if kept else there) for kept in is_kept)
            found = _state(partial, grid, place, is_kept)
            state = found if state is None else merged(reduced, state, found)
        assert state is not None
        yield index, results(reduced, state, tasks, axes)


def _state(partial: Any, grid: Grid, place: Index, is_kept: Sequence[bool]) -> State:
    """What one shard has kept: ``[axes that stay, fields]``; zeros if it is not there."""
    region = grid.region(place)
    found = np.asarray(partial[(*region, ...)])
    return found.reshape(*(n for n, kept in zip(found.shape, is_kept, strict=False) if kept), found.shape[-1])
