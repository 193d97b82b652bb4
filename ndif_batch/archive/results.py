"""Reads an archive: a lazy mapping from saved name to Zarr array, with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.group import MANIFEST, Tasks, read_group
from ndif_batch.archive.integrity import Problem, find_problems
from ndif_batch.archive.layout import reduced_layouts
from ndif_batch.archive.reducing import read_reduced
from ndif_batch.archive.reduction import ReducedSpec
from ndif_batch.archive.remote import RemotePath
from ndif_batch.archive.selection import select
from ndif_batch.archive.spec import RESERVED, STATUS, TaskStatus
from ndif_batch.archive.store import filled_array, open_array
from ndif_batch.errors import NotFoundError, UsageError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor


class NoSuchSaveError(NotFoundError, KeyError):
    """The archive has no save of that name; a ``KeyError`` because :class:`Results` is a mapping."""


class Results(Mapping[str, "zarr.Array[Any]"]):
    """The saves of one archive by name, sorted. Values are read when indexed; a running job's as they come."""

    def __init__(self, path: Path | RemotePath | str) -> None:
        """Open the archive at ``path``; ``NotFoundError`` when there is none, ``IntegrityError`` for a damaged one."""
        self.place = path if isinstance(path, RemotePath) else Path(path)
        tasks = Tasks.of(read_group(self.place), self.place)
        self.arrays = {array.name: array for array in tasks.arrays}
        self.reduced = {one.name: one for one in tasks.reduced}
        self.grid = tasks.grid
        self.axes = tasks.axes
        self._coordinates = {name: axis for name, (axis, _) in tasks.coordinates.items()}
        self._params = {name: param for name, (_, param) in tasks.coordinates.items()}
        self._read: dict[str, np.ndarray[Any, Any]] = {}

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """A statistic of a job that still runs is that of the shards that are done, in memory."""
        self.array_of(name)
        if name in self.reduced and not self._is_finished():
            return self._so_far(self.reduced[name])[name]
        return open_array(self.place, name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({**self.arrays, **self.reduced}))

    def __len__(self) -> int:
        return len(self.arrays) + len(self.reduced)

    def array_of(self, name: str) -> ArraySpec:
        """What is known of a save, or of a statistic of one; its own dimensions come after :meth:`axes_of`."""
        if name in self.reduced:
            return self.reduced[name].result
        if name not in self.arrays:
            raise NoSuchSaveError(f"the job saved nothing called {name!r}", hint=nearest(name, list(self)))
        return self.arrays[name]

    def axes_of(self, name: str) -> tuple[str, ...]:
        """The parameter axes along which it lies: all, unless they are reduced."""
        over = self.reduced[name].axes if name in self.reduced else ()
        return tuple(axis for axis in self.axes if axis not in over)

    def __repr__(self) -> str:
        axes = dict(zip(self.axes, self.grid.shape, strict=True))
        return f"Results({str(self.place)!r}, saves={list(self)}, axes={axes})"

    @property
    def path(self) -> Path:
        """Its folder; ``UsageError`` if it lies behind a server."""
        if isinstance(self.place, RemotePath):
            raise UsageError(f"the archive {self.place} is no folder of this host", hint="do this where it is")
        return self.place

    @property
    def attributes(self) -> dict[str, Any]:
        """What is known of the job: graph, model, versions. Read anew each time, as a running job may add to them."""
        found = read_group(self.place)["attributes"]
        return {key: value for key, value in found.items() if key not in RESERVED}

    def status(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The :class:`TaskStatus` of every task, shape: the axes."""
        return np.asarray(open_array(self.place, STATUS)[...], dtype=np.uint8)

    def failed(self) -> list[int]:
        """Ids of the tasks that failed."""
        ids: list[int] = np.flatnonzero(self.status() == TaskStatus.FAILED).tolist()
        return ids

    def xarray(self) -> xr.Dataset:
        """Every save with its dimensions and coordinates, as ``xarray.open_zarr`` reads it; nothing loaded yet."""
        import xarray

        place = self.place.store() if isinstance(self.place, RemotePath) else self.place
        data: xr.Dataset = xarray.open_zarr(place, consolidated=False, chunks=None)
        data = data.drop_vars([one.partial for one in self.reduced.values()])
        if self.reduced and not self._is_finished():
            for one in self.reduced.values():
                for name, array in self._so_far(one).items():
                    data[name] = data[name].copy(data=np.asarray(array[...]))
        return data[list(self)]

    def torch(self, name: str, /, *, at: Mapping[str, Any] | None = None, **labels: Any) -> Tensor:
        """A save, or a part of it, in the dtype in which it was saved; shape: axes that are left, then its own.

        ``labels`` select by label (``layer=5``, ``prompt="The…"``; positions along dimensions without labels), ``at``
        by position (``at={"layer": -1}``); a list or a slice of positions keeps the dimension. Where nothing was
        saved stand NaN, ``False`` or the integer that the array's attribute ``sentinel`` names.
        """
        import torch

        array, spec = self[name], self.array_of(name)
        dims = dict(zip((*self.axes_of(name), *spec.dims), array.shape, strict=True))
        parts = select(dims, self._coordinates, self._labels, labels, at or {})
        values = np.array(array.oindex[parts] if parts else array[...])
        source = spec.source_dtype
        return torch.from_numpy(values == 1 if source == "bool" else values).to(getattr(torch, source))

    def dataframe(self) -> pd.DataFrame:
        """Single numbers as a long table: a row a task, a column a parameter, a save, and ``task_status`` in words.

        ``attrs["skipped"]`` names the saves that are larger than one number.
        """
        import pandas

        columns: dict[str, Any] = {}
        for name, dim in self._coordinates.items():
            columns[self._params[name] or name] = self._along_tasks(dim, self._labels(name))
        status = self.status().reshape(-1)
        missing = ~np.isin(status, (TaskStatus.SAVED, TaskStatus.REUSED))
        for name in sorted(self.arrays):
            if not self.arrays[name].dims:
                columns[name] = _nullable(np.asarray(self[name][...]).reshape(-1), self.arrays[name], missing)
        words = np.array([status.name.lower() for status in TaskStatus], dtype=object)
        frame = pandas.DataFrame(
            {**columns, STATUS: words[status]}, index=pandas.RangeIndex(self.grid.size, name="task")
        )
        frame.attrs["skipped"] = [name for name in self if name in self.reduced or self.arrays[name].dims]
        return frame

    def verify(self) -> list[Problem]:
        """Every damaged or missing file and the tasks it touches: by the manifest once finished, until then by CRC."""
        if isinstance(self.place, RemotePath):
            return self.place.problems()
        tiled = {name: self.grid for array in self.arrays.values() for name in (array.name, *array.lengths)}
        tiled |= {one.partial: one.grid(self.grid, self.axes) for one in self.reduced.values()}
        return find_problems(self.place, self.grid, self._coordinates, {**tiled, STATUS: self.grid})

    def _is_finished(self) -> bool:
        """Whether the job has ended, and its statistics are written."""
        return (self.place / MANIFEST).is_file()

    def _so_far(self, reduced: ReducedSpec) -> dict[str, zarr.Array[Any]]:
        """The arrays of a statistic, of the shards that are done."""
        found = read_reduced(self.place, reduced, self.grid, self.axes)
        arrays = reduced_layouts(reduced, self.grid, self.axes)
        return {name: filled_array(arrays[name], values) for name, values in found.items()}

    def _labels(self, name: str) -> np.ndarray[Any, Any]:
        """The labels of a coordinate, read once: an archive's axes do not change."""
        if name not in self._read:
            values = np.asarray(open_array(self.place, name)[...])
            self._read[name] = values.astype(object) if values.dtype.kind == "T" else values
        return self._read[name]

    def _along_tasks(self, dim: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        axis = self.axes.index(dim)
        shape = [1] * len(self.axes)
        shape[axis] = -1
        return np.broadcast_to(values.reshape(shape), self.grid.shape).reshape(-1)


def _nullable(values: np.ndarray[Any, Any], array: ArraySpec, missing: np.ndarray[Any, Any]) -> Any:
    """A column in which what is missing is missing: floats have NaN for it, the others pandas' own types."""
    from pandas.arrays import BooleanArray, IntegerArray

    if array.source_dtype == "bool":
        return BooleanArray(values == 1, missing)
    return values if values.dtype.kind == "f" else IntegerArray(values, missing)
