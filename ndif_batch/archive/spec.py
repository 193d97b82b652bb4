"""What an archive holds: the axes of its tasks, the arrays of its saves, and what is known of the job. Pure data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.grid import Grid
from ndif_batch.archive.reduction import ReducedSpec
from ndif_batch.errors import UsageError
from ndif_batch.graph.nodes import TensorRef, Value

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
class ArchiveSpec:
    """One job's archive: ``arrays`` hold a value of each task, ``reduced`` a statistic of them.

    ``attributes`` are JSON and become group attributes as they are.
    """

    axes: tuple[AxisSpec, ...]
    tile: tuple[int, ...]
    arrays: tuple[ArraySpec, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reduced: tuple[ReducedSpec, ...] = ()

    def __post_init__(self) -> None:
        _ = self.grid
        check_attributes(self.attributes)
        _check_names(self.axes, self.arrays, self.reduced)

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
        plain, reduced = read_arrays(arrays)
        return cls(specs, tuple(tile), plain, attributes or {}, reduced)

    @property
    def grid(self) -> Grid:
        """The tasks and their tiles."""
        return Grid(tuple(len(axis) for axis in self.axes), self.tile)

    @property
    def saves(self) -> tuple[ArraySpec, ...]:
        """What each task saves: what is kept as it is, and what is reduced."""
        return (*self.arrays, *{one.source.name: one.source for one in self.reduced}.values())

    def arrays_to_json(self) -> list[dict[str, Any]]:
        """What :func:`read_arrays` reads back."""
        return [*(array.to_json() for array in self.arrays), *(one.to_json() for one in self.reduced)]

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
        whole = [axes, self.tile, self.arrays_to_json(), self.attributes]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def read_arrays(data: Iterable[Mapping[str, Any]]) -> tuple[tuple[ArraySpec, ...], tuple[ReducedSpec, ...]]:
    """The arrays of a job from their JSON: those of every task's values, and those of statistics."""
    found = [dict(one) for one in data]
    plain = tuple(ArraySpec.from_json(one) for one in found if "reduce" not in one)
    return plain, tuple(ReducedSpec.from_json(one) for one in found if "reduce" in one)


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
    return {"tensor": value.digest} if isinstance(value, TensorRef) else value


def _check_names(axes: Sequence[AxisSpec], arrays: Sequence[ArraySpec], reduced: Sequence[ReducedSpec]) -> None:
    names = [STATUS, *(name for axis in axes for name in axis.coordinates)]
    names += [name for array in arrays for name in (array.name, *array.lengths)]
    names += [name for one in reduced for name in one.names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two arrays of the archive would be called {twice[0]!r}", hint="rename the save or parameter")
    strange = [name for name in names if not _NAME.fullmatch(name)]
    if strange:
        raise UsageError(f"{strange[0]!r} cannot name an array", hint="use letters, digits, '_', '-' and '.'")
    lengths: dict[str, int] = {}
    for array in (*arrays, *(one.result for one in reduced)):
        for dim, length in zip(array.dims, array.shape, strict=True):
            if dim in names or lengths.setdefault(dim, length) != length:
                raise UsageError(f"save {array.name!r}: dimension {dim!r} already means something else")
