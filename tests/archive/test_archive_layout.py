from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, archive_size, create, finish
from ndif_batch.archive.layout import chunk_shape, layouts
from ndif_batch.sweep.tiles import tile_shape
from tests.archive.archive_example import example_spec, write_all


@given(st.lists(st.integers(1, 1024), min_size=1, max_size=3).map(tuple), st.sampled_from([1, 2, 4, 8]))
def test_chunks_divide_their_shard_and_small_shards_are_one(shard: tuple[int, ...], item_bytes: int) -> None:
    chunk = chunk_shape(shard, item_bytes)
    assert all(length % part == 0 for length, part in zip(shard, chunk, strict=True))
    if prod(shard) * item_bytes <= 2**20:
        assert chunk == shard


@pytest.mark.parametrize(
    ("shard", "expected"),
    [
        ((1024,), (1024,)),
        ((64, 576), (64, 576)),
        ((64, 12, 576), (32, 12, 576)),
        ((14, 31, 32, 576), (1, 31, 32, 576)),
        ((2, 31, 128, 4096), (1, 1, 64, 4096)),
        ((1, 1, 4096, 4096), (1, 1, 64, 4096)),
        ((1021, 1024), (1021, 1024)),
    ],
)
def test_chunks_cut_leading_axes_until_one_read_is_quick(shard: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert chunk_shape(shard, 4) == expected


def test_every_array_has_one_shard_a_tile_and_the_status_is_written_last() -> None:
    spec = example_spec()
    found = layouts(spec)
    assert list(found) == ["loss", "resid", "resid_length", "top", "right", "task_status"]
    assert {name: layout.shard for name, layout in found.items()} == {
        "loss": (2, 3),
        "resid": (2, 3, 4, 3),
        "resid_length": (2, 3),
        "top": (2, 3, 2),
        "right": (2, 3),
        "task_status": (2, 3),
    }
    assert found["resid"].dims == ("layer", "pair", "token", "hidden")
    assert found["resid"].key((2, 0)) == "c.2.0.0.0"


def test_ten_thousand_tasks_of_scalars_are_tens_of_files() -> None:
    axes = tuple(AxisSpec(name, {name: range(100)}) for name in ("layer", "position"))
    arrays = (ArraySpec.saved("loss", "float32"), ArraySpec.saved("top", "int64"))
    tile = tile_shape((100, 100), sum(array.bytes_per_task for array in arrays))
    size = archive_size(ArchiveSpec(axes, tile, arrays))
    assert size.files < 50
    assert size.bytes == 100 * 100 * (4 + 8 + 1) + 2 * 800


@pytest.mark.parametrize("shape", [(100_000,), (1000, 100), (50, 2000), (32, 25, 125), (2, 50_000), (317, 316)])
@pytest.mark.parametrize("saves", [1, 2, 5, 10])
def test_a_hundred_thousand_tasks_of_scalars_are_fewer_than_two_hundred_files(
    shape: tuple[int, ...], saves: int
) -> None:
    axes = tuple(AxisSpec(f"a{k}", {f"a{k}": range(length)}) for k, length in enumerate(shape))
    arrays = tuple(ArraySpec.saved(f"s{k}", "float32") for k in range(saves))
    tile = tile_shape(shape, 4 * saves, saves + 1)
    assert archive_size(ArchiveSpec(axes, tile, arrays)).files < 200


def test_tiles_grow_only_where_there_would_be_too_many_files() -> None:
    assert tile_shape((80_000,), 4) == (1024,)
    assert tile_shape((100_000,), 4) == (2048,)
    assert tile_shape((80_000,), 4, 5) == (4096,)
    assert tile_shape((10**9,), 4) == (8192,)
    assert tile_shape((100_000,), 2**20) == (32,)
    assert tile_shape((100_000,), 2**30) == (1,)


def test_the_size_foretold_is_the_number_of_files_of_the_finished_archive(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_all(path, spec)
    finish(path, {})
    assert archive_size(spec).files == sum(file.is_file() for file in path.rglob("*"))
    assert archive_size(spec).bytes == 15 * (4 + 4 * 4 * 3 + 4 + 16 + 1 + 1) + 5 * 8 + 3 * 3 * 8
