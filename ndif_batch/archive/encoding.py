"""A Zarr shard as it streams to its file: chunk after chunk, then its index; a few chunks at a time in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from math import prod
from typing import Any, Final, TypeAlias

import google_crc32c
import numpy as np
from numcodecs import Blosc, Zstd

from ndif_batch.archive.layout import Layout

Region: TypeAlias = tuple[slice, ...]
Read: TypeAlias = "Callable[[Region], np.ndarray[Any, Any]]"
"""The values of a part of the tile; shorter than asked for where the tile ends."""

FLOAT_COMPRESSOR: Final = "lz4"
FLOAT_LEVEL = 1
"""For bit-shuffled floats: zstd for byte-shuffled ones takes three times as long, and float32 gets no smaller."""

ZSTD_LEVEL = 3
THREADS = min(8, os.cpu_count() or 1)
AHEAD = 2 * THREADS
"""How many chunks are made before the first of them is taken."""

ABSENT = 2**64 - 1
"""What the index of a shard says of a chunk that is not there."""


def encoded(layout: Layout, extent: tuple[int, ...], read: Read) -> Iterator[bytes]:
    """The file of the shard that holds a tile of ``extent`` (its axes, then the array's own), in parts.

    The format is that of Zarr v3's ``sharding_indexed``: chunks in C order, each with its CRC32C, then offset and
    length of each as little-endian ``uint64``, with a CRC32C. Chunks beyond the tile are left out.
    """
    if not layout.shard:
        yield _encoded(layout, read(()))
        return
    counts = tuple(whole // part for whole, part in zip(layout.shard, layout.chunk, strict=True))
    index = np.full((*counts, 2), ABSENT, dtype="<u8")
    offset = 0
    for place, data in _in_order(layout, extent, counts, read):
        index[place] = offset, len(data)
        offset += len(data)
        yield data
    yield _checked(index.tobytes())


def _in_order(
    layout: Layout, extent: tuple[int, ...], counts: tuple[int, ...], read: Read
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """The encoded chunks that hold something of the tile; several are made at once if there are several."""

    def made(place: tuple[int, ...]) -> bytes:
        spans = zip(place, layout.chunk, extent, strict=True)
        region = tuple(slice(at * part, min((at + 1) * part, whole)) for at, part, whole in spans)
        return _encoded(layout, _whole(layout, read(region)))

    reached = (range(min(n, -(-whole // part))) for n, whole, part in zip(counts, extent, layout.chunk, strict=True))
    places = product(*reached)
    if prod(counts) == 1:
        yield from ((place, made(place)) for place in places)
        return
    with ThreadPoolExecutor(THREADS, "encode") as pool:
        begun: deque[tuple[tuple[int, ...], Future[bytes]]] = deque()
        for place in places:
            begun.append((place, pool.submit(made, place)))
            if len(begun) > AHEAD:
                first, future = begun.popleft()
                yield first, future.result()
        yield from ((place, future.result()) for place, future in begun)


def _whole(layout: Layout, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A chunk of full size, filled up where the tile ends."""
    if values.shape == layout.chunk:
        return values
    chunk = np.full(layout.chunk, layout.fill, dtype=layout.dtype)
    chunk[tuple(map(slice, values.shape))] = values
    return chunk


def _encoded(layout: Layout, values: np.ndarray[Any, Any]) -> bytes:
    flat = np.ascontiguousarray(values, dtype=np.dtype(layout.dtype).newbyteorder("<")).reshape(-1)
    floats = layout.dtype[0] == "f"
    codec = (
        Blosc(FLOAT_COMPRESSOR, FLOAT_LEVEL, Blosc.BITSHUFFLE, typesize=flat.itemsize) if floats else Zstd(ZSTD_LEVEL)
    )
    return _checked(codec.encode(flat))


def _checked(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    return data + checksum.to_bytes(4, "little")
