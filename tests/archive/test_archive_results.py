from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, TaskStatus, create, finish, write_shard
from ndif_batch.errors import IntegrityError, NotFoundError, UsageError
from tests.archive.archive_example import FAILED, PROMPTS, example_spec, write_tile

READ_WITHOUT_US = """
import sys, warnings
warnings.simplefilter("error")
sys.modules["ndif_batch"] = None
import xarray, zarr
data = xarray.open_zarr(sys.argv[1])
assert data["loss"].dims == ("layer", "pair")
assert data["loss"].sel(layer=3, pair=2).item() == 11 / 4
assert data["resid"].dims == ("layer", "pair", "token", "hidden")
assert int(data["resid_length"].sel(layer=0, pair=2)) == 3
assert data["clean"].values.tolist() == ["The capital of", "Größe", ""]
assert sorted(data.data_vars) == ["loss", "resid", "right", "top"], data
assert data.attrs["job"] == 7
group = zarr.open(sys.argv[1], mode="r")
assert group["top"][4, 1].tolist() == [13, -13]
assert group["task_status"][1, 1] == 2
assert len(dict(group.members())) == 10
"""


@pytest.mark.parametrize("finished", [False, True])
def test_plain_xarray_and_zarr_read_it_without_this_package_or_a_warning(written: Results, finished: bool) -> None:
    if finished:
        finish(written.path, {})
    command = [sys.executable, "-c", READ_WITHOUT_US, str(written.path)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_results_are_a_sorted_lazy_mapping_of_saves_alone(written: Results) -> None:
    assert list(written) == ["loss", "resid", "right", "top"]
    assert len(written) == 4
    assert "loss" in written
    assert "layer" not in written
    assert "task_status" not in written
    assert written.get("nothing") is None
    assert isinstance(written["loss"], zarr.Array)
    with pytest.raises(NotFoundError, match="the job saved nothing called 'los'") as raised:
        written["los"]
    assert raised.value.hint == "did you mean 'loss'?"


def test_the_dataset_is_labelled_and_nothing_is_loaded(written: Results) -> None:
    data = written.xarray()
    assert list(data.data_vars) == ["loss", "resid", "right", "top"]
    assert set(data.coords) == {"layer", "pair", "clean", "ids", "resid_length", "task_status"}
    assert not any(array._in_memory for array in data.data_vars.values())
    assert data["clean"].values.tolist() == PROMPTS
    assert data["ids"].values.tolist() == ["[1, 2]", "[3]", "[4, 5]"]
    assert float(data["loss"].sel(layer=4, pair=0)) == 3.0
    xarray.testing.assert_equal(data.load(), xarray.open_zarr(written.path).load())


def test_a_dataset_opens_without_consolidated_metadata_and_beside_unfinished_writes(written: Results) -> None:
    group = json.loads((written.path / "zarr.json").read_text())
    del group["consolidated_metadata"]
    (written.path / "zarr.json").write_text(json.dumps(group))
    assert zarr.open_group(written.path, mode="r").metadata.consolidated_metadata is None
    (written.path / "loss" / ".c.0.0.host.1.0123abcd.tmp").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = written.xarray()
    assert float(data["loss"].sel(layer=4, pair=0)) == 3.0


def test_an_open_reader_sees_the_tiles_of_a_running_job_as_they_come(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", example_spec()
    create(path, spec)
    results = Results(path)
    data, loss = results.xarray(), results["loss"]
    assert np.isnan(loss[0, 1])
    write_tile(path, spec, (0, 0))
    assert loss[0, 1] == 0.25
    assert float(data["loss"][0, 1]) == 0.25
    assert results.status()[:, 0].tolist() == [1, 1, 0, 0, 0]


def test_text_along_an_axis_of_its_own_selects(tmp_path: Path) -> None:
    path = tmp_path / "7.zarr"
    spec = ArchiveSpec((AxisSpec("prompt", {"prompt": PROMPTS}),), (3,), (ArraySpec.saved("loss", "float32"),))
    create(path, spec)
    write_shard(path, spec, 0, {"loss": list(np.arange(3, dtype=np.float32))}, [TaskStatus.SAVED] * 3)
    assert float(Results(path).xarray()["loss"].sel(prompt="Größe")) == 1.0
    assert Results(path).torch("loss", prompt="").item() == 2.0


def test_torch_restores_the_saved_dtype(written: Results) -> None:
    resid = written.torch("resid")
    assert resid.dtype == torch.bfloat16
    assert resid.shape == (5, 3, 4, 3)
    assert resid[1, 0, :, 0].tolist() == [3.0] * 4
    assert written.torch("loss").dtype == torch.float32
    right = written.torch("right", layer=1)
    assert right.dtype == torch.bool
    assert right.tolist() == [False, False, False]
    assert written.torch("top", layer=1, pair=1).tolist() == [-(2**63)] * 2


@pytest.mark.parametrize(
    ("at", "labels", "expected"),
    [
        (None, {"layer": 4, "pair": 1}, 3.25),
        (None, {"layer": 2}, [1.5, 1.75, 2.0]),
        (None, {"layer": [0, 3], "pair": 0}, [0.0, 2.25]),
        (None, {"layer": slice(1, 3), "pair": 0}, [0.75, 1.5]),
        (None, {"clean": "Größe", "layer": 2}, 1.75),
        (None, {"clean": ["", "The capital of"], "layer": 2}, [1.5, 2.0]),
        (None, {"ids": "[4, 5]", "clean": "", "layer": 0}, 0.5),
        ({"layer": -1}, {}, [3.0, 3.25, 3.5]),
        ({"layer": -1, "pair": [0, 2]}, {}, [3.0, 3.5]),
        ({"layer": 0}, {"pair": 2}, 0.5),
    ],
)
def test_parts_are_selected_by_label_or_by_position(
    written: Results, at: dict[str, Any] | None, labels: dict[str, Any], expected: Any
) -> None:
    assert written.torch("loss", at=at, **labels).tolist() == expected


def test_labels_are_not_positions(tmp_path: Path) -> None:
    path = tmp_path / "7.zarr"
    spec = ArchiveSpec((AxisSpec("layer", {"layer": [10, 5, 10]}),), (3,), (ArraySpec.saved("loss", "float32"),))
    create(path, spec)
    write_shard(path, spec, 0, {"loss": list(np.arange(3, dtype=np.float32))}, [TaskStatus.SAVED] * 3)
    assert Results(path).torch("loss", layer=5).item() == 1.0
    assert Results(path).torch("loss", layer=10).tolist() == [0.0, 2.0]
    with pytest.raises(NotFoundError, match="'layer' has no label 0"):
        Results(path).torch("loss", layer=0)


@pytest.mark.parametrize(
    ("selection", "error", "message"),
    [
        ({"layr": 1}, UsageError, "no dimension or coordinate 'layr'"),
        ({"layer": 9}, NotFoundError, "'layer' has no label 9"),
        ({"clean": "Grosse"}, NotFoundError, "'clean' has no label 'Grosse'"),
        ({"token": 4}, NotFoundError, "position 4 is outside the 4 of 'token'"),
        ({"clean": "Größe", "ids": "[4, 5]"}, NotFoundError, "nothing is selected along 'pair'"),
        ({"at": {"clean": 0}}, UsageError, "no dimension or coordinate 'clean'"),
    ],
)
def test_a_selection_that_is_not_there_is_told(
    written: Results, selection: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        written.torch("resid", **selection)


def test_the_table_has_a_row_a_task_and_leaves_gaps_where_tasks_failed(written: Results) -> None:
    table = written.dataframe()
    assert list(table.columns) == ["layer", "pair", "clean", "ids", "loss", "right", "task_status"]
    assert table.attrs["skipped"] == ["resid", "top"]
    assert table.index.name == "task"
    assert table.loc[7].to_dict() == {
        "layer": 2,
        "pair": 1,
        "clean": "Größe",
        "ids": "[3]",
        "loss": 1.75,
        "right": False,
        "task_status": "saved",
    }
    assert table.loc[FAILED, ["loss", "right"]].isna().all()
    assert table.loc[FAILED, "task_status"] == "failed"
    assert table["right"].isna().sum() == 1


def test_the_table_of_one_task_is_one_row(tmp_path: Path) -> None:
    path, spec = tmp_path / "7.zarr", ArchiveSpec((), (), (ArraySpec.saved("token", "int64"),))
    create(path, spec)
    assert Results(path).dataframe()["token"].isna().tolist() == [True]
    write_shard(path, spec, 0, {"token": [np.array(7)]}, [TaskStatus.REUSED])
    assert Results(path).dataframe().to_dict("records") == [{"token": 7, "task_status": "reused"}]


def test_status_failures_and_attributes(written: Results) -> None:
    expected = np.full((5, 3), TaskStatus.SAVED, np.uint8)
    expected[1, 1] = TaskStatus.FAILED
    np.testing.assert_array_equal(written.status(), expected)
    assert written.failed() == [FAILED]
    assert written.attributes == {"job": 7}
    assert repr(written).endswith("saves=['loss', 'resid', 'right', 'top'], axes={'layer': 5, 'pair': 3})")


def test_a_path_without_an_archive_and_a_foreign_group_are_told_apart_from_results(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no archive at"):
        Results(tmp_path / "7.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(IntegrityError, match="is no archive, or its metadata is damaged"):
        Results(tmp_path / "other.zarr")
