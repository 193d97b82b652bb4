"""Cuts a job's task grid into tiles: each is one shard, leased and written whole."""

from __future__ import annotations

from math import ceil, prod

MAX_TASKS = 1024
MAX_BYTES = 32 * 2**20


def tile_shape(shape: tuple[int, ...], bytes_per_task: int) -> tuple[int, ...]:
    """The tile of a grid of ``shape``: trailing axes whole, at most ``MAX_TASKS`` tasks and ``MAX_BYTES`` saved bytes.

    A tile is 1 long on every axis before the one that it cuts, so that its tasks are one range of ids.
    """
    room = max(1, min(MAX_TASKS, MAX_BYTES // max(1, bytes_per_task)))
    tile = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        tile[axis] = min(shape[axis], room)
        room //= tile[axis]
        if tile[axis] < shape[axis]:
            break
    return tuple(tile)


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
