"""Takes single tasks back out of an archive, each only if all that it saved is there and whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from zarr.storage import MemoryStore

from ndif_batch.archive.group import GROUP
from ndif_batch.archive.integrity import DAMAGE
from ndif_batch.archive.layout import Layout, layouts
from ndif_batch.archive.spec import STATUS, ArchiveSpec, TaskStatus
from ndif_batch.archive.store import create_array, is_empty, open_array

Values: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"
_Array: TypeAlias = "np.ndarray[Any, Any]"

KEPT_BYTES = 2**24
"""How much of what was read an instance keeps: tiles of one chunk, which cost as much to read in part as whole."""

SAVED = (TaskStatus.SAVED, TaskStatus.REUSED)


class SavedTasks:
    """The saved tasks of the archive at ``path``, which ``spec`` describes; its attributes do not matter.

    What is missing or damaged is as if it had not been saved: nothing here raises. Every chunk is compared with its
    CRC32C as it is read, every array's metadata with what ``spec`` asks for.
    """

    def __init__(self, path: Path, spec: ArchiveSpec) -> None:
        self._path = path
        self._spec = spec
        self._layouts = layouts(spec)
        self._arrays: dict[str, Any] = {}
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], _Array] = OrderedDict()
        self._kept_bytes = 0

    def saved(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each task whether it is said to be saved; what it saved is not looked at."""
        found = np.zeros(self._spec.grid.size, dtype=np.bool_)
        for index in self._spec.grid.indices():
            try:
                status = self._read(STATUS, index, self._spec.grid.region(index))
            except DAMAGE:
                continue
            tasks = self._spec.grid.tasks(index)
            found[tasks.start : tasks.stop] = np.isin(status, SAVED).reshape(-1)
        return found

    def take(self, tasks: _Array) -> dict[int, Values]:
        """What those of ``tasks`` saved that can be had: arrays by name in stored dtypes, each of its own shape."""
        found: dict[int, Values] = {}
        for index, wanted in self._by_tile(tasks):
            try:
                found |= self._from_tile(index, wanted)
            except DAMAGE:
                continue
        return found

    def _by_tile(self, tasks: _Array) -> Iterator[tuple[tuple[int, ...], _Array]]:
        """The tiles that hold ``tasks``, each with those in it."""
        if not len(tasks):
            return
        grid = self._spec.grid
        points = np.unravel_index(tasks, grid.shape) if grid.shape else ()
        rows = np.stack([at // cut for at, cut in zip(points, grid.tile, strict=True)], 1) if points else None
        if rows is None:
            yield (), tasks
            return
        tiles, member = np.unique(rows, axis=0, return_inverse=True)
        for number, tile in enumerate(tiles):
            yield tuple(map(int, tile)), tasks[member.reshape(-1) == number]

    def _from_tile(self, index: tuple[int, ...], tasks: _Array) -> dict[int, Values]:
        grid = self._spec.grid
        points = np.unravel_index(tasks, grid.shape) if grid.shape else ()
        region = tuple(slice(int(at.min()), int(at.max()) + 1) for at in points)
        places = tuple(at - part.start for at, part in zip(points, region, strict=True))
        is_saved = np.isin(self._read(STATUS, index, region)[places], SAVED).reshape(-1)
        if not is_saved.any():
            return {}
        rows = {
            name: self._read(name, index, region)[places].reshape((len(tasks), *layout.shape[len(grid.shape) :]))
            for name, layout in self._layouts.items()
            if name != STATUS
        }
        return {int(task): self._values(rows, k) for k, task in enumerate(tasks) if is_saved[k]}

    def _values(self, rows: Mapping[str, _Array], k: int) -> Values:
        """The values of the task in row ``k``, without what pads them to the longest."""
        values = {}
        for array in self._spec.arrays:
            cut = [slice(None)] * len(array.dims)
            for name, own in array.lengths.items():
                cut[own] = slice(int(rows[name][k]))
            values[array.name] = rows[array.name][k][tuple(cut)]
        return values

    def _read(self, name: str, index: tuple[int, ...], region: tuple[slice, ...]) -> _Array:
        """A part of a tile; raises one of ``DAMAGE`` when it is not there."""
        layout = self._layouts[name]
        if is_empty(layout):
            return np.zeros((*(part.stop - part.start for part in region), *layout.shape[len(region) :]), layout.dtype)
        tile = self._spec.grid.region(index)
        inside = tuple(
            slice(part.start - at.start, part.stop - at.start) for part, at in zip(region, tile, strict=True)
        )
        if (name, index) in self._kept:
            self._kept.move_to_end((name, index))
            return self._kept[name, index][inside]
        if not (self._path / name / layout.key(index)).stat().st_size:  # Zarr would read fill values
            raise ValueError(f"{name} of tile {index} is empty")
        array = self._array(name, layout)
        if layout.chunk != layout.shard:
            return np.asarray(array[(*region, ...)])
        whole = np.asarray(array[(*tile, ...)])
        self._keep(name, index, whole)
        return whole[inside]

    def _array(self, name: str, layout: Layout) -> Any:
        """The Zarr array, if its metadata is what this version would write."""
        if name not in self._arrays:
            contents: dict[str, Any] = {}
            create_array(MemoryStore(contents), layout, name=None, shape=layout.shape)
            if (self._path / name / GROUP).read_bytes() != contents[GROUP].to_bytes():
                raise ValueError(f"{name} is another array")
            self._arrays[name] = open_array(self._path, name)
        return self._arrays[name]

    def _keep(self, name: str, index: tuple[int, ...], whole: _Array) -> None:
        if name == STATUS and (whole == TaskStatus.WAITING).any():
            return
        self._kept[name, index] = whole
        self._kept_bytes += whole.nbytes
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
