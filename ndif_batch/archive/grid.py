"""The grid of a job's tasks, cut into tiles: one is one leased shard and one Zarr shard of each array."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from ndif_batch.errors import UsageError


@dataclass(frozen=True, slots=True)
class Grid:
    """Tasks on axes of ``shape``, numbered in C order, cut into tiles that are each one range of task ids."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = len(self.tile) == len(self.shape)
        if not fits or any(not 1 <= cut <= length for cut, length in zip(self.tile, self.shape, strict=True)):
            raise UsageError(f"tile {self.tile} does not fit the axes {self.shape}")
        cut = next((axis for axis, length in enumerate(self.tile) if length > 1), len(self.tile))
        if self.tile[cut + 1 :] != self.shape[cut + 1 :]:
            raise UsageError(f"tile {self.tile} is not one range of the tasks of {self.shape}")

    @property
    def size(self) -> int:
        """Number of tasks."""
        return prod(self.shape)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return prod(self._counts())

    def indices(self) -> Iterator[tuple[int, ...]]:
        """The place of each tile in the grid of tiles, in order of its tasks."""
        return product(*(range(count) for count in self._counts()))

    def has(self, index: tuple[int, ...]) -> bool:
        """Whether there is a tile at that place."""
        counts = self._counts()
        return len(index) == len(counts) and all(0 <= at < count for at, count in zip(index, counts, strict=True))

    def region(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """What a tile covers of each axis; tiles at the end of an axis are shorter."""
        spans = zip(index, self.tile, self.shape, strict=True)
        return tuple(slice(at * cut, min((at + 1) * cut, length)) for at, cut, length in spans)

    def extent(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """How long a tile is on each axis."""
        return tuple(part.stop - part.start for part in self.region(index))

    def tasks(self, index: tuple[int, ...]) -> range:
        """The task ids of a tile."""
        first = 0
        for length, part in zip(self.shape, self.region(index), strict=True):
            first = first * length + part.start
        return range(first, first + prod(self.extent(index)))

    def index(self, first_task: int, count: int) -> tuple[int, ...]:
        """The tile that is exactly ``count`` tasks from ``first_task``; ``UsageError`` when there is none."""
        task, point = first_task, []
        for length in reversed(self.shape):
            task, along = divmod(task, length)
            point.append(along)
        index = tuple(at // cut for at, cut in zip(reversed(point), self.tile, strict=True))
        if task or first_task < 0 or self.tasks(index) != range(first_task, first_task + count):
            raise UsageError(
                f"tasks {first_task} to {first_task + count - 1} are not one tile {self.tile} of {self.shape}"
            )
        return index

    def reduced(self, axes: Collection[int]) -> Grid:
        """The same tiles, each one place long on ``axes`` (by position), which are as long as there are tiles."""
        counts = self._counts()
        shape = tuple(counts[at] if at in axes else length for at, length in enumerate(self.shape))
        return Grid(shape, tuple(1 if at in axes else cut for at, cut in enumerate(self.tile)))

    def _counts(self) -> tuple[int, ...]:
        return tuple(ceil(length / cut) for length, cut in zip(self.shape, self.tile, strict=True))
