"""What a shard's tasks save, reduced as it comes: some values at a time in memory, then one row of numbers."""

from __future__ import annotations

from itertools import groupby
from math import prod
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive.reduction import ReducedSpec
from ndif_batch.archive.spec import ArchiveSpec
from ndif_batch.archive.statistics import State, merged, observed

BLOCK_BYTES = 2**25
"""Values of so many bytes are reduced together: one product of matrices in place of one for each task."""

_Array: TypeAlias = "np.ndarray[Any, Any]"


class Accumulator:
    """The statistic ``reduced`` of one tile, that of ``tasks`` tasks from ``first_task``.

    The order in which values come, and how many at a time, changes nothing but rounding in float64.
    """

    def __init__(self, spec: ArchiveSpec, reduced: ReducedSpec, first_task: int, tasks: int) -> None:
        index = spec.grid.index(first_task, tasks)
        extent, self._extent = spec.grid.extent(index), reduced.grid(spec.grid, spec.dims).extent(index)
        kept = [
            axis if name not in reduced.axes else 0 for axis, name in zip(np.indices(extent), spec.dims, strict=True)
        ]
        rows: _Array = np.ravel_multi_index(tuple(np.broadcast_arrays(*kept)), self._extent)
        self._rows = np.broadcast_to(rows, extent).reshape(-1)
        self._reduced = reduced
        self._first_task = first_task
        self._block: list[tuple[int, int, _Array]] = []
        self._block_bytes = 0
        self._state: State | None = None

    def add(self, place: int, value: _Array) -> None:
        """What the task at a place of the tile saved."""
        self._block.append((int(self._rows[place]), self._first_task + place, value))
        self._block_bytes += value.nbytes
        if self._block_bytes >= BLOCK_BYTES:
            self._fold()

    def state(self) -> State:
        """What :func:`~ndif_batch.archive.writer.write_shard` takes; nothing is added afterwards."""
        self._fold()
        return self._whole().reshape(*self._extent, -1)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self._block_bytes + (0 if self._state is None else self._state.nbytes)

    def _whole(self) -> State:
        if self._state is None:
            self._state = np.zeros((prod(self._extent), self._reduced.state_size))
        return self._state

    def _fold(self) -> None:
        state, block = self._whole(), sorted(self._block, key=itemgetter(0, 1))
        self._block, self._block_bytes = [], 0
        for row, group in groupby(block, key=itemgetter(0)):
            _, tasks, values = zip(*group, strict=True)
            state[row] = merged(self._reduced, state[row], observed(self._reduced, values, tasks))
