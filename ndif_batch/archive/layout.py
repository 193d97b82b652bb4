"""How each array lies in its Zarr store: dimensions, fill value, shards and the chunks inside them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, log, prod
from typing import Any

from ndif_batch.archive.arrays import ArraySpec, sentinel
from ndif_batch.archive.grid import Grid
from ndif_batch.archive.reduction import ReducedSpec, ReduceOp
from ndif_batch.archive.spec import STATUS, ArchiveSpec, TaskStatus
from ndif_batch.graph.abstract import ITEM_BYTES

CHUNK_BYTES = 2**20
"""About what one read decompresses: a millisecond or two of work."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One array on disk. ``shard`` and ``chunk`` are ``()`` for a single value, which is one plain chunk."""

    name: str
    dtype: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    fill: float | int
    attributes: Mapping[str, Any]

    def key(self, index: tuple[int, ...]) -> str:
        """The file of a tile's shard, beneath the array's directory."""
        return shard_key(index, len(self.shape))


def shard_key(index: tuple[int, ...], ndim: int) -> str:
    """The file of the shard at ``index`` of an array whose further dimensions are whole."""
    return ".".join(["c", *map(str, (*index, *(0,) * (ndim - len(index))))])


def layouts(spec: ArchiveSpec) -> dict[str, Layout]:
    """Every array that tasks write: name → layout, with ``task_status`` last, as it is written last."""
    arrays = [layout for array in spec.arrays for layout in (_save(spec, array), *_lengths(spec, array))]
    arrays += [_partial(spec, reduced) for reduced in spec.reduced]
    return {layout.name: layout for layout in (*arrays, _status(spec))}


def all_layouts(spec: ArchiveSpec) -> dict[str, Layout]:
    """Every array but the coordinates: those that tasks write, and those that are made when the job has ended."""
    reduced = (reduced_layouts(one, spec.grid, spec.dims) for one in spec.reduced)
    return {name: layout for some in (*reduced, layouts(spec)) for name, layout in some.items()}


def reduced_layouts(reduced: ReducedSpec, tasks: Grid, axes: Sequence[str]) -> dict[str, Layout]:
    """The arrays of one statistic, which are written when the job has ended: itself, its count, places of ``topk``."""
    how: dict[str, Any] = {
        "op": reduced.op.value,
        "over": list(reduced.over),
    }
    how |= {name: number for name, number in (("k", reduced.k), ("ddof", reduced.ddof)) if number}
    grid = reduced.grid(tasks, axes)
    kept = [at for at, name in enumerate(axes) if name not in reduced.axes]

    def made(array: ArraySpec, fill: float | int, attributes: Mapping[str, Any]) -> Layout:
        dims = (*(axes[at] for at in kept), *array.dims)
        shape = (*(grid.shape[at] for at in kept), *array.shape)
        shard = (*(grid.tile[at] for at in kept), *(max(1, length) for length in array.shape))
        chunk = chunk_shape(shard, ITEM_BYTES[array.dtype])
        return Layout(array.name, array.dtype, dims, shape, shard, chunk, fill, attributes)

    result = reduced.result
    found = [made(result, _fill(reduced), {"role": "reduced", "source_dtype": result.source_dtype, **how})]
    if reduced.count is not None:
        found.append(made(ArraySpec(reduced.count, "int64", "int64"), 0, {"role": "count", "save": reduced.name}))
    for name, dim in reduced.places.items():
        places = ArraySpec(name, "int64", "int64", result.dims, result.shape)
        found.append(made(places, -1, {"role": "places", "save": reduced.name, "dimension": dim}))
    return {layout.name: layout for layout in found}


def chunk_shape(shard: tuple[int, ...], item_bytes: int, target: int = CHUNK_BYTES) -> tuple[int, ...]:
    """The chunk inside a shard: leading dimensions are cut, into equal parts, until it is near ``target`` bytes."""
    chunk = list(shard)
    for axis, length in enumerate(shard):
        whole = prod(chunk) * item_bytes
        if whole <= target:
            break
        chunk[axis] = min(_divisors(length), key=lambda part: abs(log(whole * part / length / target)))
        if chunk[axis] > 1:
            break
    return tuple(chunk)


def _divisors(number: int) -> list[int]:
    small = [part for part in range(1, isqrt(number) + 1) if number % part == 0]
    return sorted({*small, *(number // part for part in small)})


def _save(spec: ArchiveSpec, array: ArraySpec) -> Layout:
    attributes: dict[str, Any] = {"role": "save", "source_dtype": array.source_dtype}
    fill = sentinel(array.dtype)
    if isinstance(fill, int):
        attributes["sentinel"] = fill
    return _tiled(spec, array.name, array.dtype, array, fill, attributes)


def _partial(spec: ArchiveSpec, reduced: ReducedSpec) -> Layout:
    """What each shard has seen: a row of numbers for each place of the axes that stay."""
    grid = reduced.grid(spec.grid, spec.dims)
    shard = (*grid.tile, reduced.state_size)
    axes = (f"{name}_tile" if name in reduced.axes else name for name in spec.dims)
    fields = [[name, list(shape)] for name, shape in reduced.fields.items()]
    attributes = {"role": "partial", "save": reduced.name, "op": reduced.op.value, "fields": fields}
    dims, shape = (*axes, f"{reduced.name}_field"), (*grid.shape, reduced.state_size)
    return Layout(reduced.partial, "float64", dims, shape, shard, chunk_shape(shard, 8), 0.0, attributes)


def _fill(reduced: ReducedSpec) -> float | int:
    return 0 if reduced.op is ReduceOp.COUNT else sentinel(reduced.result.dtype)


def _lengths(spec: ArchiveSpec, array: ArraySpec) -> list[Layout]:
    return [
        _tiled(spec, name, "int32", None, 0, {"role": "length", "save": array.name, "dimension": array.dims[own]})
        for name, own in array.lengths.items()
    ]


def _status(spec: ArchiveSpec) -> Layout:
    flags = {"flag_values": [int(s) for s in TaskStatus], "flag_meanings": " ".join(s.name.lower() for s in TaskStatus)}
    return _tiled(spec, STATUS, "uint8", None, TaskStatus.WAITING.value, {"role": "status", **flags})


def _tiled(
    spec: ArchiveSpec, name: str, dtype: str, array: ArraySpec | None, fill: float | int, attributes: Mapping[str, Any]
) -> Layout:
    own_dims, own_shape = (array.dims, array.shape) if array else ((), ())
    shard = (*spec.tile, *(max(1, length) for length in own_shape))
    chunk = chunk_shape(shard, ITEM_BYTES[dtype])
    return Layout(name, dtype, (*spec.dims, *own_dims), (*spec.grid.shape, *own_shape), shard, chunk, fill, attributes)
