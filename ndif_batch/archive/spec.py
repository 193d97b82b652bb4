"""What an archive holds: the axes of its tasks, the arrays of its saves, and what is known of the job. Pure data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import nan, prod
from typing import Any

from ndif_batch.archive.grid import Grid
from ndif_batch.errors import UsageError
from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.graph.nodes import Inputs, TensorRef, Value
from ndif_batch.graph.serialize import inputs_to_json

STATUS = "task_status"
OWN_KEY = "ndif_batch"
RESERVED = (OWN_KEY, "coordinates")
"""Group attributes that the archive writes itself; CF readers know ``coordinates``."""
_NAME = re.compile(r"\w[\w.\-\[\]]{0,199}")


class TaskStatus(IntEnum):
    """What became of a task; one that is excluded was never to run."""

    WAITING = 0
    SAVED = 1
    FAILED = 2
    REUSED = 3
    EXCLUDED = 4


def stored_dtype(source_dtype: str) -> str:
    """How Zarr keeps a torch dtype: bfloat16 widened without loss, bool as 0 and 1 so that a sentinel has room."""
    return {"bfloat16": "float32", "bool": "uint8"}.get(source_dtype, source_dtype)


def sentinel(dtype: str) -> float | int:
    """What stands where nothing was saved: NaN, the least integer, or the greatest of an unsigned type."""
    if dtype.startswith("float"):
        return nan
    bits = 8 * ITEM_BYTES[dtype]
    return (1 << bits) - 1 if dtype.startswith("u") else -(1 << (bits - 1))


@dataclass(frozen=True, slots=True)
class AxisSpec:
    """One axis of the parameter space and the values of its parameters, all of one length."""

    name: str
    columns: Mapping[str, Sequence[Value]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def coordinates(self) -> dict[str, str | None]:
        """Coordinate → parameter along this axis; ``None`` stands for the counted integers of tied parameters."""
        if len(self.columns) == 1:
            return {self.name: next(iter(self.columns))}
        counted = {} if self.name in self.columns else {self.name: None}
        return {**counted, **{param: param for param in self.columns}}


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One saved value: ``dims`` and ``shape`` are its own, without the axes; ``shape`` is the longest of any task.

    ``dtype`` is numpy's name as stored, ``source_dtype`` torch's name as saved. ``ragged`` are the positions in
    ``dims`` whose length differs between tasks.
    """

    name: str
    dtype: str
    source_dtype: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    ragged: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES or self.dtype in ("bfloat16", "bool"):
            raise UsageError(f"save {self.name!r}: dtype {self.dtype!r} cannot be stored")
        if len(self.dims) != len(self.shape) or len(set(self.dims)) < len(self.dims):
            raise UsageError(f"save {self.name!r}: dimensions {self.dims} do not name the shape {self.shape}")
        if not set(self.ragged) <= set(range(len(self.dims))):
            raise UsageError(f"save {self.name!r}: ragged {self.ragged} are not among {len(self.dims)} dimensions")

    @classmethod
    def saved(
        cls,
        name: str,
        source_dtype: str,
        shape: Sequence[int] = (),
        dims: Sequence[str] | None = None,
        ragged: Sequence[int] = (),
    ) -> ArraySpec:
        """The array for a save of a torch dtype; dimensions without names are called ``<save>_<number>``."""
        named = tuple(f"{name}_{k}" for k in range(len(shape))) if dims is None else tuple(dims)
        return cls(name, stored_dtype(source_dtype), source_dtype, named, tuple(shape), tuple(ragged))

    @property
    def bytes_per_task(self) -> int:
        """Bytes of one task's value, before compression."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def lengths(self) -> dict[str, int]:
        """The coordinates that hold lengths → the own dimension they measure; empty when nothing is ragged."""
        if len(self.ragged) == 1:
            return {f"{self.name}_length": self.ragged[0]}
        return {f"{self.name}_{self.dims[own]}_length": own for own in self.ragged}

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "source_dtype": self.source_dtype,
            "dims": list(self.dims),
            "shape": list(self.shape),
            "ragged": list(self.ragged),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArraySpec:
        """The inverse of :meth:`to_json`."""
        dims, shape, ragged = (tuple(data[key]) for key in ("dims", "shape", "ragged"))
        return cls(data["name"], data["dtype"], data["source_dtype"], dims, shape, ragged)


@dataclass(frozen=True, slots=True)
class ArchiveSpec:
    """One job's archive. ``attributes`` are JSON and become group attributes as they are."""

    axes: tuple[AxisSpec, ...]
    tile: tuple[int, ...]
    arrays: tuple[ArraySpec, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.grid
        check_attributes(self.attributes)
        _check_names(self.axes, self.arrays)

    @classmethod
    def described(
        cls,
        axes: Mapping[str, Mapping[str, Sequence[Value]]],
        tile: Sequence[int],
        arrays: Iterable[Mapping[str, Any]],
        attributes: Mapping[str, Any] | None = None,
    ) -> ArchiveSpec:
        """The archive of a job whose ``axes`` have these columns and whose ``arrays`` are JSON."""
        specs = tuple(AxisSpec(name, columns) for name, columns in axes.items())
        return cls(specs, tuple(tile), tuple(ArraySpec.from_json(array) for array in arrays), attributes or {})

    @property
    def grid(self) -> Grid:
        """The tasks and their tiles."""
        return Grid(tuple(len(axis) for axis in self.axes), self.tile)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def digest(self) -> str:
        """SHA-256 of everything here: equal for equal archives, whether values come as ranges, lists or tuples."""
        axes = [
            [axis.name, {p: [_plain(v) for v in column] for p, column in axis.columns.items()}] for axis in self.axes
        ]
        whole = [axes, self.tile, [array.to_json() for array in self.arrays], self.attributes]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for the first attribute that JSON cannot hold or whose name the archive uses itself."""
    for key, value in attributes.items():
        if key in RESERVED:
            raise UsageError(f"attribute {key!r} is the archive's own")
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"attribute {key!r} is not JSON: {error}") from None


def distinct_dims(axes: Sequence[AxisSpec], arrays: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    """The arrays, with every own dimension whose name already means something else renamed ``<save>_<dimension>``.

    In one archive a dimension has one length, and is no other thing's name: an axis', a coordinate's or a save's.
    """
    taken = {name for axis in axes for name in (axis.name, *axis.coordinates)} | {array.name for array in arrays}
    lengths: dict[str, int] = {}
    renamed = []
    for array in arrays:
        dims = []
        for dim, length in zip(array.dims, array.shape, strict=True):
            clashes = dim in taken or lengths.setdefault(dim, length) != length
            dims.append(f"{array.name}_{dim}" if clashes else dim)
        renamed.append(replace(array, dims=tuple(dims)))
    return tuple(renamed)


def _plain(value: Value) -> Any:
    if isinstance(value, Inputs):
        return inputs_to_json(value)
    return {"tensor": value.digest} if isinstance(value, TensorRef) else value


def _check_names(axes: Sequence[AxisSpec], arrays: Sequence[ArraySpec]) -> None:
    names = [STATUS, *(name for axis in axes for name in axis.coordinates)]
    names += [name for array in arrays for name in (array.name, *array.lengths)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two arrays of the archive would be called {twice[0]!r}", hint="rename the save or parameter")
    strange = [name for name in names if not _NAME.fullmatch(name)]
    if strange:
        raise UsageError(f"{strange[0]!r} cannot name an array", hint="use letters, digits, '_', '-' and '.'")
    lengths: dict[str, int] = {}
    for array in arrays:
        for dim, length in zip(array.dims, array.shape, strict=True):
            if dim in names or lengths.setdefault(dim, length) != length:
                raise UsageError(f"save {array.name!r}: dimension {dim!r} already means something else")
