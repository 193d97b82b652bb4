"""Cuts a job's task grid into tiles: each is one shard, leased and written whole."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

TASKS = (1024, 2048, 4096, 8192)
"""The most tasks of a tile: the first with which the tiles are few enough files, else the last."""

MAX_FILES = 160
"""File systems of clusters count files; an archive has some more beside those of its tiles."""

MAX_BYTES = 32 * 2**20


def tile_shape(
    shape: tuple[int, ...],
    bytes_per_task: int,
    files: int = 2,
    fits: Callable[[tuple[int, ...]], bool] = lambda tile: True,
) -> tuple[int, ...]:
    """The tile of a grid of ``shape``: trailing axes whole, at most ``MAX_BYTES`` saved bytes unless of one task.

    A tile is ``files`` files; it has more tasks where that is too many, or where it ``fits`` not. It is 1 long on every
    axis before the one that it cuts, so that its tasks are one range of ids.
    """
    largest = max(1, MAX_BYTES // max(1, bytes_per_task))
    tiles = (_cut(shape, min(tasks, largest)) for tasks in TASKS)
    fitting = (tile for tile in tiles if files * _count(shape, tile) <= MAX_FILES and fits(tile))
    return next(fitting, _cut(shape, min(TASKS[-1], largest)))


def _cut(shape: tuple[int, ...], tasks: int) -> tuple[int, ...]:
    """The tile of at most so many tasks."""
    tile = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        tile[axis] = min(shape[axis], tasks)
        tasks //= tile[axis]
        if tile[axis] < shape[axis]:
            break
    return tuple(tile)


def _count(shape: tuple[int, ...], tile: tuple[int, ...]) -> int:
    return prod(ceil(length / cut) for length, cut in zip(shape, tile, strict=True))


def tile_tasks(shape: tuple[int, ...], tile: tuple[int, ...]) -> list[range]:
    """The task ids of each tile, in order; together they are every task exactly once."""
    if not shape:
        return [range(1)]
    cut = next((axis for axis in range(len(shape)) if tile[axis] > 1), len(shape) - 1)
    inner = prod(shape[cut + 1 :])
    tiles = []
    for outer in range(prod(shape[:cut])):
        start = outer * shape[cut] * inner
        for k in range(ceil(shape[cut] / tile[cut])):
            first, last = k * tile[cut], min((k + 1) * tile[cut], shape[cut])
            tiles.append(range(start + first * inner, start + last * inner))
    return tiles
