"""Whatever dies, an archive is readable, and writing again makes it complete."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, TaskStatus, clean, create, write_shard
from ndif_batch.errors import UnavailableError
from tests.archive.archive_example import example_spec, write_all, write_tile

StartChild = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.parametrize(("deed", "stride", "least_steps"), [("create", 5, 60), ("write", 1, 20), ("finish", 1, 10)])
def test_a_writer_killed_at_any_step_leaves_a_readable_archive_that_a_second_attempt_completes(
    deed: str, stride: int, least_steps: int, tmp_path: Path, start_child: StartChild
) -> None:
    child = start_child("crash", tmp_path / "7.zarr", deed, stride)
    output, errors = child.communicate()
    assert child.returncode == 0, errors
    assert json.loads(output)["steps"] >= least_steps


def test_two_processes_writing_different_tiles_at_once_lose_nothing(tmp_path: Path, start_child: StartChild) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    children = [start_child("race", path, parity, 8) for parity in (0, 1)]
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 0, errors
    results = Results(path)
    assert (results.status() == TaskStatus.SAVED).all()
    np.testing.assert_array_equal(np.ravel(results["loss"][...]), np.arange(15) / 4)
    assert results.verify() == []


def test_two_processes_writing_the_same_tiles_at_once_leave_each_whole(tmp_path: Path, start_child: StartChild) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_all(path, spec, None)
    children = [start_child("race", path, 0, 12) for _ in range(2)]
    looks = 0
    while any(child.poll() is None for child in children):
        np.testing.assert_array_equal(np.ravel(Results(path)["loss"][...]), np.arange(15) / 4)
        looks += 1
    for child in children:
        _, errors = child.communicate()
        assert child.returncode == 0, errors
    assert looks > 3
    assert Results(path).verify() == []
    assert list(path.rglob("*.tmp")) == []


def test_an_archive_is_whole_for_readers_while_it_is_finished_again_and_again(
    tmp_path: Path, start_child: StartChild
) -> None:
    path, spec = tmp_path / "7.zarr", example_spec(job=7)
    create(path, spec)
    write_all(path, spec)
    child = start_child("finish", path, 60)
    looks = 0
    while child.poll() is None:
        results = Results(path)
        assert results.attributes["job"] == 7
        assert float(results.xarray()["loss"][4, 0]) == 3.0
        looks += 1
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    assert looks > 3
    assert Results(path).attributes["round"] == 59
    assert Results(path).verify() == []


def test_a_write_over_the_file_size_limit_names_bytes_and_path_and_leaves_no_half_shard(
    tmp_path: Path, start_child: StartChild
) -> None:
    path = tmp_path / "7.zarr"
    create(path, example_spec())
    child = start_child("limit", path, 40)
    output, errors = child.communicate()
    assert child.returncode == 0, errors
    error = json.loads(output)
    assert "bytes to" in error["message"]
    assert str(path / "loss" / "c.1.0") in error["message"]
    assert "free some space" in error["hint"]
    assert [file.name for file in path.rglob("c.1*")] == []
    assert list(path.rglob("*.tmp")) == []
    results = Results(path)
    assert results.status()[:2].tolist() == [[TaskStatus.SAVED] * 3] * 2
    assert results.verify() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_unavailable_error_and_space_makes_the_same_write_succeed(small_disk: Path) -> None:
    path = small_disk / "7.zarr"
    width = 50_000
    spec = ArchiveSpec(
        (AxisSpec("layer", {"layer": range(2)}),), (1,), (ArraySpec.saved("resid", "float32", (width,)),)
    )
    create(path, spec)
    noise = np.random.default_rng(0).normal(size=width).astype(np.float32)
    write_shard(path, spec, 0, {"resid": [noise]}, [TaskStatus.SAVED])
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(150_000))
    with pytest.raises(
        UnavailableError, match=r"cannot write 1\d\d,\d{3} bytes to .*/resid/c\.1\.0: No space left"
    ) as raised:
        write_shard(path, spec, 1, {"resid": [noise]}, [TaskStatus.SAVED])
    assert raised.value.exit_code == 6
    assert list(path.rglob("*.tmp")) == []
    assert Results(path).status().tolist() == [TaskStatus.SAVED, TaskStatus.WAITING]
    ballast.unlink()
    write_shard(path, spec, 1, {"resid": [noise]}, [TaskStatus.SAVED])
    np.testing.assert_array_equal(Results(path)["resid"][1], noise)


def test_an_archive_that_does_not_fit_on_the_disk_is_not_there_at_all(small_disk: Path) -> None:
    axis = AxisSpec("prompt", {"prompt": [np.random.default_rng(k).bytes(2000).hex() for k in range(400)]})
    with pytest.raises(UnavailableError, match="cannot write files to"):
        create(small_disk / "7.zarr", ArchiveSpec((axis,), (400,), (ArraySpec.saved("loss", "float32"),)))
    assert list(small_disk.iterdir()) == []


def test_clean_spares_the_living_and_takes_the_dead_and_the_old(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_all(path, spec)
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = os.uname().nodename.replace(".", "-")
    names = {
        "mine": path / "loss" / f".c.0.0.{host}.{os.getpid()}.0123abcd.tmp",
        "dead": path / "loss" / f".c.0.0.{host}.{dead.pid}.0123abcd.tmp",
        "elsewhere": path / "loss" / f".c.0.0.not-this-host.{dead.pid}.0123abcd.tmp",
        "unrelated": path / "loss" / ".notes.tmp",
    }
    for file in names.values():
        file.write_bytes(b"half")
    unborn = tmp_path / f".7.zarr.{host}.{dead.pid}.0123abcd.tmp"
    unborn.mkdir()
    touched = names["elsewhere"].stat().st_mtime
    assert set(clean(path, now=touched + 3599)) == {names["dead"], unborn}
    assert set(clean(path, now=touched + 3601)) == {names["mine"], names["elsewhere"]}
    assert list(path.rglob("*.tmp")) == [names["unrelated"]]
    assert Results(path).verify() == []


def test_writing_again_replaces_what_a_first_attempt_left(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_tile(path, spec, (0, 0), failed=1)
    before = {file: file.read_bytes() for file in path.rglob("c.0*")}
    write_tile(path, spec, (0, 0), failed=1)
    assert {file: file.read_bytes() for file in path.rglob("c.0*")} == before
    write_tile(path, spec, (0, 0))
    assert Results(path)["loss"][0, 1] == 0.25
    assert Results(path).failed() == []
