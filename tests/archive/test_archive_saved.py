"""Tasks are taken back out of an archive as they were saved, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, SavedTasks, TaskStatus, create, write_shard
from tests.archive.archive_example import FAILED, example_spec, saved_by, write_all, write_tile
from tests.archive.test_archive_integrity import flip

EVERY = np.arange(15)


def taken(path: Path, tasks: Sequence[int] | np.ndarray[Any, Any] = EVERY) -> list[int]:
    """The tasks that can be had; their values must be right."""
    found = SavedTasks(path, example_spec()).take(np.asarray(tasks))
    for task, values in found.items():
        expected = saved_by(task)
        assert sorted(values) == sorted(expected)
        for name, value in values.items():
            assert np.array_equal(value, expected[name]), (task, name)
            assert value.shape == expected[name].shape
    return sorted(found)


def test_every_saved_task_comes_back_as_it_was_whatever_the_order(written: Results) -> None:
    everything = [task for task in range(15) if task != FAILED]
    assert taken(written.path) == everything
    assert taken(written.path, EVERY[::-1]) == everything
    assert taken(written.path, [13, 0, 7]) == [0, 7, 13]
    assert taken(written.path, []) == []
    assert np.flatnonzero(SavedTasks(written.path, example_spec()).saved()).tolist() == everything


def test_what_is_not_written_yet_is_not_saved_and_is_found_once_it_is(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    reader = SavedTasks(path, spec)
    assert (reader.take(EVERY), reader.saved().any()) == ({}, np.False_)
    create(path, spec)
    write_tile(path, spec, (1, 0))
    assert sorted(reader.take(EVERY)) == [6, 7, 8, 9, 10, 11]
    write_tile(path, spec, (0, 0), failed=4)
    assert sorted(reader.take(EVERY)) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def test_a_task_that_was_reused_itself_is_saved(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", ArchiveSpec((), (), (ArraySpec.saved("loss", "float32"),))
    create(path, spec)
    write_shard(path, spec, 0, {"loss": [np.array(2.5, np.float32)]}, [TaskStatus.REUSED])
    assert SavedTasks(path, spec).take(np.array([0]))[0]["loss"] == 2.5


@pytest.mark.parametrize("file", ["loss/c.1.0", "resid/c.1.0.0.0", "resid_length/c.1.0", "task_status/c.1.0"])
def test_a_flipped_byte_or_a_cut_file_takes_its_tile_away(written: Results, file: str) -> None:
    damaged, others = written.path / file, [task for task in range(15) if task not in (FAILED, *range(6, 12))]
    whole = damaged.read_bytes()
    for at in range(0, len(whole), 3):
        flip(damaged, at)
        assert taken(written.path) == others, at
        damaged.write_bytes(whole)
    for left in (0, 1, len(whole) - 1):
        damaged.write_bytes(whole[:left])
        assert taken(written.path) == others
    damaged.unlink()
    assert taken(written.path) == others


def test_a_flipped_byte_of_an_arrays_metadata_takes_every_task_away(written: Results) -> None:
    file = written.path / "loss" / "zarr.json"
    whole = file.read_bytes()
    for at in range(0, len(whole), 17):
        flip(file, at)
        assert taken(written.path) == [], at
        file.write_bytes(whole)
    assert len(taken(written.path)) == 14


def test_an_archive_that_is_gone_or_of_another_shape_has_nothing(written: Results) -> None:
    spec = example_spec()
    longer = ArchiveSpec((AxisSpec("layer", {"layer": range(6)}), spec.axes[1]), spec.tile, spec.arrays)
    assert SavedTasks(written.path, longer).take(EVERY) == {}
    shutil.rmtree(written.path)
    assert taken(written.path) == []


def test_large_values_are_read_in_part_and_ragged_ones_cut(tmp_path: Path) -> None:
    wide = 2**18
    spec = ArchiveSpec(
        (AxisSpec("i", {"i": range(6)}),), (4,), (ArraySpec.saved("x", "float32", (wide,), ragged=(0,)),)
    )
    path = tmp_path / "7.zarr"
    create(path, spec)
    for index in spec.grid.indices():
        tasks = spec.grid.tasks(index)
        values = [np.full(wide - task, task, np.float32) for task in tasks]
        write_shard(path, spec, tasks.start, {"x": values}, [TaskStatus.SAVED] * len(tasks))
    reader = SavedTasks(path, spec)
    found = reader.take(np.array([5, 1]))
    assert {task: (values["x"].shape, values["x"].max()) for task, values in found.items()} == {
        1: ((wide - 1,), 1),
        5: ((wide - 5,), 5),
    }


def test_nothing_saved_by_a_task_without_elements_is_still_taken(tmp_path: Path) -> None:
    spec = ArchiveSpec((AxisSpec("i", {"i": range(2)}),), (2,), (ArraySpec.saved("x", "float32", (0,)),))
    path = tmp_path / "7.zarr"
    create(path, spec)
    write_shard(path, spec, 0, {"x": [np.zeros(0, np.float32)] * 2}, [TaskStatus.SAVED] * 2)
    assert [values["x"].shape for values in SavedTasks(path, spec).take(np.array([0, 1])).values()] == [(0,), (0,)]


def test_only_so_much_is_kept_and_all_can_still_be_had(written: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndif_batch.archive.saved.KEPT_BYTES", 50)
    assert len(taken(written.path)) == 14
    write_all(written.path, example_spec(), failed=None)
    assert len(taken(written.path)) == 15
