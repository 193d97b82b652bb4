"""How fast tiles reach the disk, beside a plain write and fsync of the same compressed bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, TaskStatus, create, write_shard
from ndif_batch.archive.encoding import encoded
from ndif_batch.archive.files import write_file
from ndif_batch.archive.layout import layouts
from storing.timing import seconds

TASKS, TOKENS, WIDTH = 32, 64, 4096
"""A tile of 32 MiB: the residual of 32 tasks."""

PIECE = 2**20
"""Bytes of one plain write: Linux takes four times as long for 12 MiB at once as for twelve of one."""


def measure(folder: Path, tiles: int) -> dict[str, Any]:
    """For random residuals of each dtype: bytes, and the seconds of each way, tile by tile in turn."""
    return {dtype: _measure(folder / dtype, dtype, tiles) for dtype in ("bfloat16", "float32")}


def _measure(folder: Path, dtype: str, tiles: int) -> Mapping[str, Any]:
    array = ArraySpec.saved("resid", dtype, (TOKENS, WIDTH))
    spec = ArchiveSpec((AxisSpec("task", {"task": range(TASKS * tiles)}),), (TASKS,), (array,))
    create(folder / "job.zarr", spec)
    values = _residuals(dtype)
    layout = layouts(spec)["resid"]
    parts = list(encoded(layout, values.shape, values.__getitem__))
    whole = b"".join(parts)
    ways: dict[str, Callable[[int], Any]] = {
        "encode": lambda tile: list(encoded(layout, values.shape, values.__getitem__)),
        "plain": lambda tile: _plain(folder / f"plain{tile}", whole),
        "files": lambda tile: write_file(folder / f"file{tile}", parts),
        "write_shard": lambda tile: write_shard(
            folder / "job.zarr", spec, tile * TASKS, {"resid": list(values)}, [TaskStatus.SAVED] * TASKS
        ),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    source = random.Random(0)
    for tile in range(tiles):
        for way in source.sample(list(ways), len(ways)):  # what runs before decides what waits in the disk's queue
            taken[way] += seconds(partial(ways[way], tile), 1)
    medians = {way: median(found) for way, found in taken.items()}
    return {
        "bytes": values.nbytes,
        "compressed_bytes": len(whole),
        "seconds": taken,
        "median_seconds": medians,
        "files_share_of_plain": medians["plain"] / medians["files"],
        "write_shard_share_of_plain": medians["plain"] / medians["write_shard"],
    }


def _residuals(dtype: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    values = np.random.default_rng(0).standard_normal((TASKS, TOKENS, WIDTH), np.float32)
    if dtype == "bfloat16":
        values.view(np.uint32)[...] &= 0xFFFF0000
    return values


def _plain(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        for start in range(0, len(data), PIECE):
            file.write(data[start : start + PIECE])
        file.flush()
        os.fsync(file.fileno())
