"""Zarr arrays made from layouts, with their codecs and checksums."""

from __future__ import annotations

import warnings
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from ndif_batch.archive.coordinates import Coordinate
from ndif_batch.archive.encoding import FLOAT_LEVEL, ZSTD_LEVEL
from ndif_batch.archive.layout import Layout
from ndif_batch.archive.remote import RemotePath

# One flat directory an array: nested ones would double the inodes.
_KEYS: Any = {"name": "default", "separator": "."}
# A shard of nothing but fill values must exist too: its file is the proof that the tile was written.
_CONFIG: Any = {"write_empty_chunks": True}


def create_array(store: Store, layout: Layout, *, name: str | None, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """An empty array of ``layout`` in ``store``; floats byte-shuffled, everything with CRC32C."""
    squeeze = BloscCodec(cname="zstd", clevel=FLOAT_LEVEL, shuffle="shuffle") if layout.dtype[0] == "f" else _zstd()
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        dtype=layout.dtype,
        shards=layout.shard or None,
        chunks=layout.chunk,
        fill_value=layout.fill,
        compressors=[squeeze, Crc32cCodec()],
        attributes=dict(layout.attributes),
        dimension_names=layout.dims,
        chunk_key_encoding=_KEYS,
        config=_CONFIG,
    )


def filled_array(layout: Layout, values: np.ndarray[Any, Any]) -> zarr.Array[Any]:
    """An array of ``layout`` that holds ``values``, in memory."""
    array = create_array(MemoryStore(), layout, name=None, shape=values.shape)
    array[...] = values
    return array


def create_coordinate(store: Store, coordinate: Coordinate) -> None:
    """Write a coordinate, its labels in one chunk."""
    text = coordinate.values.dtype == np.dtype(object)
    array = zarr.create_array(
        store,
        name=coordinate.name,
        shape=coordinate.values.shape,
        dtype="str" if text else coordinate.values.dtype,
        chunks=coordinate.values.shape,
        compressors=[_zstd(), Crc32cCodec()],
        attributes={"role": "coordinate", "parameter": coordinate.parameter},
        dimension_names=[coordinate.dim],
        chunk_key_encoding=_KEYS,
        config=_CONFIG,
    )
    array[...] = coordinate.values


def consolidate(store: Store) -> None:
    """Collect the metadata of all arrays in the group's own file, which readers may use and need not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(store)


def open_array(path: Path | RemotePath, name: str) -> zarr.Array[Any]:
    """The array ``name`` of the archive at ``path``, to read."""
    store = path.store() if isinstance(path, RemotePath) else LocalStore(path, read_only=True)
    return zarr.open_array(store, path=name, mode="r")


def is_empty(layout: Layout) -> bool:
    """Whether the array has no elements and hence no shards."""
    return prod(layout.shape) == 0


def _zstd() -> BytesBytesCodec:
    return ZstdCodec(level=ZSTD_LEVEL)
