from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.archive.grid import Grid
from ndif_batch.errors import UsageError
from ndif_batch.sweep.tiles import tile_shape, tile_tasks

SHAPES = st.lists(st.integers(1, 7), max_size=4).map(tuple)
BYTES = st.sampled_from([1, 2**20, 2**22, 2**24, 2**26])


@given(SHAPES, BYTES)
def test_the_tiles_of_a_sweep_are_the_tiles_of_its_archive(shape: tuple[int, ...], bytes_per_task: int) -> None:
    tile = tile_shape(shape, bytes_per_task)
    grid = Grid(shape, tile)
    assert [grid.tasks(index) for index in grid.indices()] == tile_tasks(shape, tile)
    assert grid.tiles == len(tile_tasks(shape, tile))


@given(SHAPES, BYTES)
def test_a_tile_covers_the_region_in_which_its_tasks_lie(shape: tuple[int, ...], bytes_per_task: int) -> None:
    grid = Grid(shape, tile_shape(shape, bytes_per_task))
    ids = np.arange(grid.size).reshape(shape)
    for index in grid.indices():
        tasks = grid.tasks(index)
        assert ids[grid.region(index)].reshape(-1).tolist() == list(tasks)
        assert ids[grid.region(index)].shape == grid.extent(index)
        assert grid.index(tasks.start, len(tasks)) == index
        assert grid.has(index)


@pytest.mark.parametrize(("first", "count"), [(0, 5), (0, 7), (1, 6), (6, 3), (12, 6), (15, 3), (-3, 3), (0, 0)])
def test_tasks_that_are_not_one_tile_are_refused(first: int, count: int) -> None:
    with pytest.raises(UsageError, match="are not one tile"):
        Grid((5, 3), (2, 3)).index(first, count)


@pytest.mark.parametrize("tile", [(2,), (2, 2), (0, 3), (6, 3), (2, 3, 1)])
def test_a_tile_that_is_not_one_range_of_tasks_is_refused(tile: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"tile \("):
        Grid((5, 3), tile)


@pytest.mark.parametrize("index", [(3, 0), (0, 1), (-1, 0), (0,), ()])
def test_there_are_no_tiles_outside_the_grid(index: tuple[int, ...]) -> None:
    assert not Grid((5, 3), (2, 3)).has(index)
