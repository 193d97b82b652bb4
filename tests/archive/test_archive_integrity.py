"""Damage is found, and the tasks it touches are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ndif_batch.archive import Problem, Results, create, finish
from ndif_batch.errors import NdifBatchError
from tests.archive.archive_example import example_spec, write_all, write_tile

TILE = range(6, 12)
ALL = range(15)


def flip(file: Path, at: int) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 0x10
    file.write_bytes(damaged)


def test_one_flipped_byte_anywhere_in_a_shard_is_found_by_its_checksum(written: Results) -> None:
    file = written.path / "resid" / "c.1.0.0.0"
    whole = file.read_bytes()
    for at in range(len(whole)):
        flip(file, at)
        assert written.verify() == [Problem("resid/c.1.0.0.0", "does not match its checksum", TILE)], at
        file.write_bytes(whole)
    assert written.verify() == []


@pytest.mark.parametrize("left", [0, 1, 4, 20, 40])
def test_a_shard_cut_short_is_found_by_its_checksum(written: Results, left: int) -> None:
    file = written.path / "loss" / "c.2.0"
    file.write_bytes(file.read_bytes()[:left])
    assert written.verify() == [Problem("loss/c.2.0", "does not match its checksum", range(12, 15))]


def test_missing_arrays_and_labels_are_found(written: Results) -> None:
    (written.path / "clean" / "c.0").unlink()
    shutil.rmtree(written.path / "loss")
    assert written.verify() == [Problem("clean/c.0", "missing", ALL), Problem("loss/zarr.json", "not readable", ALL)]


@pytest.mark.parametrize("name", ["clean/c.0", "layer/c.0"])
def test_a_damaged_coordinate_touches_every_task(written: Results, name: str) -> None:
    flip(written.path / name, 3)
    assert written.verify() == [Problem(name, "does not match its checksum", ALL)]


def test_a_shard_missing_where_tasks_are_done_is_found_and_a_waiting_tile_is_no_damage(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_tile(path, spec, (1, 0))
    assert Results(path).verify() == []
    (path / "top" / "c.1.0.0").unlink()
    assert Results(path).verify() == [Problem("top/c.1.0.0", "missing", TILE)]


def test_unreadable_metadata_of_an_array_touches_every_task(written: Results) -> None:
    (written.path / "loss" / "zarr.json").write_text("{")
    assert written.verify() == [Problem("loss/zarr.json", "not readable", ALL)]


def test_after_finish_one_flipped_byte_in_any_file_is_found(written: Results) -> None:
    finish(written.path, {"gpu": "H100"})
    files = [file for file in written.path.rglob("*") if file.is_file() and file.name != "SHA256SUMS"]
    assert len(files) == 33
    for file in files:
        whole = file.read_bytes()
        flip(file, len(whole) // 2)
        name = file.relative_to(written.path).as_posix()
        tiled = file.name.startswith("c.") and file.parent.name not in ("layer", "pair", "clean", "ids")
        tile = written.grid.tasks((int(file.name.split(".")[1]), 0)) if tiled else ALL
        assert written.verify() == [Problem(name, "changed since the job was finished", tile)]
        file.write_bytes(whole)
    assert written.verify() == []


def test_after_finish_missing_and_strange_files_are_found(written: Results) -> None:
    finish(written.path, {})
    (written.path / "loss" / "c.0.0").rename(written.path / "loss" / "c.7.0")
    assert written.verify() == [
        Problem("loss/c.0.0", "missing", range(6)),
        Problem("loss/c.7.0", "not in the manifest", ALL),
    ]


def test_a_damaged_manifest_is_found(written: Results) -> None:
    finish(written.path, {})
    manifest = written.path / "task_status" / "SHA256SUMS"
    whole = manifest.read_bytes()
    for at in range(0, len(whole), 97):
        flip(manifest, at)
        assert written.verify(), at
        manifest.write_bytes(whole)
    assert written.verify() == []


def test_a_shard_written_after_finish_is_no_damage_and_finish_may_follow_again(written: Results) -> None:
    finish(written.path, {"gpu": "H100"})
    write_all(written.path, example_spec(job=7), failed=None)
    assert written.verify() == []
    finish(written.path, {})
    assert written.verify() == []
    assert written.failed() == []
    assert written.attributes["gpu"] == "H100"


def test_a_damaged_group_is_an_error_of_ours_wherever_the_byte(written: Results) -> None:
    file = written.path / "zarr.json"
    whole = file.read_bytes()
    attributes = whole.index(b'"consolidated_metadata"')
    raised = 0
    for at in range(0, attributes, 7):
        flip(file, at)
        try:
            Results(written.path)
        except NdifBatchError:
            raised += 1
        file.write_bytes(whole)
    assert raised > 20


@pytest.mark.parametrize(
    ("tasks", "said"), [(range(6, 12), "x/c.0: missing (tasks 6 to 11)"), (range(3, 4), "x/c.0: missing (task 3)")]
)
def test_a_problem_reads_as_a_sentence(tasks: range, said: str) -> None:
    assert str(Problem("x/c.0", "missing", tasks)) == said
