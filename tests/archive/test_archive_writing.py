"""What tasks save is what is read back, in every dtype, shape and tiling."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, TaskStatus, create, finish, write_shard
from ndif_batch.errors import ConflictError, NotFoundError, ShapeError, UsageError
from ndif_batch.sweep.tiles import tile_shape
from tests.archive.archive_example import example_spec, saved_by, write_all, write_tile

DTYPES = ["float32", "float64", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64"]


@st.composite
def jobs(draw: st.DrawFn) -> ArchiveSpec:
    shape = draw(st.lists(st.integers(1, 4), max_size=3).map(tuple))
    own = draw(st.lists(st.integers(0, 3), max_size=2).map(tuple))
    ragged = draw(st.sets(st.sampled_from(range(len(own)))) if own else st.just(set[int]()))
    array = ArraySpec.saved("x", draw(st.sampled_from(DTYPES)), own, ragged=sorted(ragged))
    axes = tuple(AxisSpec(f"a{k}", {f"a{k}": range(length)}) for k, length in enumerate(shape))
    return ArchiveSpec(axes, tile_shape(shape, draw(st.sampled_from([1, 2**23, 2**24]))), (array,))


def value_of(array: ArraySpec, task: int) -> np.ndarray[Any, Any]:
    shape = [length - (task % (length + 1) if own in array.ragged else 0) for own, length in enumerate(array.shape)]
    values = np.random.default_rng(task).integers(0, 2 if array.source_dtype == "bool" else 100, size=shape)
    return values.astype(array.dtype)


@settings(max_examples=60, deadline=None)
@given(jobs(), st.integers(0, 3))
def test_every_value_is_read_back_where_its_task_lies_and_the_rest_is_missing(spec: ArchiveSpec, lost: int) -> None:
    (array,), grid = spec.arrays, spec.grid
    with TemporaryDirectory() as directory:
        path = Path(directory) / "job.zarr"
        create(path, spec)
        for index in grid.indices():
            tasks = grid.tasks(index)
            values = [None if task % 4 == lost else value_of(array, task) for task in tasks]
            status = [TaskStatus.FAILED if value is None else TaskStatus.SAVED for value in values]
            write_shard(path, spec, tasks.start, {"x": values}, status)
        results = Results(path)
        stored = np.asarray(results["x"][...]).reshape((grid.size, *array.shape))
        lengths = {own: np.ravel(results.xarray()[name].values) for name, own in array.lengths.items()}
        for task in range(grid.size):
            expected = np.full(array.shape, results["x"].fill_value, array.dtype)
            if task % 4 != lost:
                value = value_of(array, task)
                expected[tuple(map(slice, value.shape))] = value
                assert {own: found[task] for own, found in lengths.items()} == {o: value.shape[o] for o in lengths}
            np.testing.assert_array_equal(stored[task], expected)
        assert results.failed() == [task for task in range(grid.size) if task % 4 == lost]
        assert results.verify() == []


def test_the_shards_at_the_end_of_an_axis_are_shorter(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    write_tile(path, spec, (2, 0))
    assert Results(path).status().tolist() == [[0] * 3] * 4 + [[1] * 3]
    np.testing.assert_array_equal(Results(path)["loss"][4], [3.0, 3.25, 3.5])
    assert np.isnan(Results(path)["loss"][:4]).all()


def test_each_array_says_how_it_is_stored(written: Results) -> None:
    resid, top, right = written["resid"], written["top"], written["right"]
    assert resid.metadata.to_dict()["dimension_names"] == ("layer", "pair", "token", "hidden")
    assert dict(resid.attrs) == {"role": "save", "source_dtype": "bfloat16"}
    assert np.isnan(resid.fill_value)
    assert dict(top.attrs) == {"role": "save", "source_dtype": "int64", "sentinel": -(2**63)}
    assert top.fill_value == -(2**63)
    assert dict(right.attrs) == {"role": "save", "source_dtype": "bool", "sentinel": 255}
    assert resid.shards == (2, 3, 4, 3)
    codecs = json.loads((written.path / "resid" / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert [codec["name"] for codec in codecs["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert codecs["codecs"][1]["configuration"] | {"blocksize": 0} == {
        "typesize": 4,
        "cname": "lz4",
        "clevel": 1,
        "shuffle": "bitshuffle",
        "blocksize": 0,
    }
    codecs = json.loads((written.path / "top" / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert [codec["name"] for codec in codecs["codecs"]] == ["bytes", "zstd", "crc32c"]


def test_an_archive_that_was_begun_with_another_compressor_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "1.zarr"
    axes = (AxisSpec("layer", {"layer": range(4)}),)
    spec = ArchiveSpec(axes, (2,), (ArraySpec.saved("x", "float32", (1000,)),))
    values = list(np.random.default_rng(0).standard_normal((4, 1000), np.float32))
    create(path, spec)
    for file in (path / "x" / "zarr.json", path / "zarr.json"):
        file.write_text(file.read_text().replace('"lz4"', '"zstd"').replace('"bitshuffle"', '"shuffle"'))
    create(path, spec)
    for first in (0, 2):
        write_shard(path, spec, first, {"x": values[first : first + 2]}, [TaskStatus.SAVED] * 2)
    finish(path, {})
    array = zarr.open_group(path, mode="r")["x"]
    assert isinstance(array, zarr.Array)
    assert '"zstd"' in (path / "x" / "zarr.json").read_text()
    np.testing.assert_array_equal(np.asarray(array[...]), values)
    assert Results(path).verify() == []


def test_a_job_of_one_task_has_no_axes(tmp_path: Path) -> None:
    path = tmp_path / "1.zarr"
    spec = ArchiveSpec((), (), (ArraySpec.saved("loss", "float32"), ArraySpec.saved("logits", "float32", (2, 3))))
    create(path, spec)
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_shard(path, spec, 0, {"loss": [np.array(0.5, np.float32)], "logits": [logits]}, [TaskStatus.SAVED])
    finish(path, {})
    results = Results(path)
    assert results["loss"][...] == 0.5
    np.testing.assert_array_equal(results["logits"][...], logits)
    assert results.status().shape == ()
    assert results.verify() == []


def test_creating_the_same_again_changes_nothing_and_another_is_a_conflict(tmp_path: Path) -> None:
    path, spec = tmp_path / "user" / "7.zarr", example_spec(job=7)
    create(path, spec)
    write_all(path, spec)
    create(path, example_spec(job=7))
    assert Results(path)["loss"][1, 0] == 0.75
    with pytest.raises(ConflictError, match="there is another archive at"):
        create(path, example_spec(job=8))
    assert [file.name for file in path.parent.iterdir()] == ["7.zarr"]


def test_a_directory_or_file_that_is_no_archive_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    (tmp_path / "file").write_text("…")
    for name in ("mine", "file"):
        with pytest.raises(ConflictError, match="is there and is no archive"):
            create(tmp_path / name, example_spec())
    assert (tmp_path / "mine" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "…"


def test_an_equal_archive_made_by_another_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    exists = Path.is_dir

    def overtaken(self: Path) -> bool:
        monkeypatch.setattr(Path, "is_dir", exists)
        create(path, spec)
        write_all(path, spec)
        return False

    monkeypatch.setattr(Path, "is_dir", overtaken)
    create(path, spec)
    assert Results(path)["loss"][0, 1] == 0.25
    assert [file.name for file in tmp_path.iterdir()] == ["7.zarr"]


def test_finish_adds_attributes_and_keeps_the_first(written: Results) -> None:
    finish(written.path, {"gpu": "H100", "job": 8})
    finish(written.path, {"gpu": "H200"})
    assert written.attributes == {"job": 8, "gpu": "H200"}
    assert zarr.open_group(written.path, mode="r").metadata.consolidated_metadata is not None


def _values(**changed: Any) -> dict[str, list[Any]]:
    columns = {name: [saved_by(task)[name] for task in range(6)] for name in saved_by(0)}
    return columns | {name: [value] * 6 for name, value in changed.items()}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": np.zeros(1)}, r"task 0 saved 'loss' as \(1,\), its array holds \(\)"),
        ({"resid": np.zeros((5, 3))}, r"task 0 saved 'resid' as \(5, 3\), its array holds \(4, 3\)"),
        ({"resid": np.zeros((4, 2))}, r"task 0 saved 'resid' as \(4, 2\), its array holds \(4, 3\)"),
        ({"top": np.zeros(2)}, "task 0 saved 'top' as float64, its array holds int64"),
    ],
)
def test_a_value_that_its_array_cannot_take_is_refused_by_task(written: Results, changed: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        write_shard(written.path, example_spec(job=7), 0, _values(**changed), [1] * 6)


def test_wrong_tasks_names_and_states_are_refused(written: Results, tmp_path: Path) -> None:
    spec = example_spec(job=7)
    with pytest.raises(UsageError, match="tasks 3 to 8 are not one tile"):
        write_shard(written.path, spec, 3, _values(), [1] * 6)
    with pytest.raises(UsageError, match="save 'top' has 0 values for 6 tasks"):
        write_shard(written.path, spec, 0, {**_values(), "top": []}, [1] * 6)
    with pytest.raises(UsageError, match="unknown task status"):
        write_shard(written.path, spec, 0, _values(), [1, 1, 1, 1, 1, 9])
    with pytest.raises(NotFoundError, match="there is no archive"):
        write_shard(tmp_path / "8.zarr", spec, 0, _values(), [1] * 6)
