"""How each array lies in its Zarr store: dimensions, fill value, shards and the chunks inside them. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, prod
from typing import Any

from ndif_batch.archive.spec import STATUS, ArchiveSpec, ArraySpec, TaskStatus, sentinel
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
    return {layout.name: layout for layout in (*arrays, _status(spec))}


def chunk_shape(shard: tuple[int, ...], item_bytes: int, target: int = CHUNK_BYTES) -> tuple[int, ...]:
    """The chunk inside a shard: leading dimensions are cut, into equal parts, until it is near ``target`` bytes."""
    chunk = list(shard)
    for axis, length in enumerate(shard):
        whole = prod(chunk) * item_bytes
        if whole <= target:
            break
        divisors = (part for part in range(1, length + 1) if length % part == 0)
        chunk[axis] = min(divisors, key=lambda part: abs(log(whole * part / length / target)))
        if chunk[axis] > 1:
            break
    return tuple(chunk)


def _save(spec: ArchiveSpec, array: ArraySpec) -> Layout:
    attributes: dict[str, Any] = {"role": "save", "source_dtype": array.source_dtype}
    fill = sentinel(array.dtype)
    if isinstance(fill, int):
        attributes["sentinel"] = fill
    return _tiled(spec, array.name, array.dtype, array, fill, attributes)


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
