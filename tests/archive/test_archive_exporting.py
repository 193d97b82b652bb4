from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from safetensors import safe_open

from ndif_batch.archive import ArchiveSpec, ArraySpec, Results, create, export
from ndif_batch.errors import NotFoundError, UsageError
from tests.archive.archive_example import FAILED, PROMPTS


def test_safetensors_hold_the_saved_dtypes_labels_and_attributes(written: Results, tmp_path: Path) -> None:
    path = tmp_path / "7.safetensors"
    assert export(written, path, "safetensors") == ()
    with safe_open(path, "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    assert set(held) == {"loss", "resid", "right", "top", "layer", "pair", "resid_length", "task_status"}
    assert held["resid"].dtype == torch.bfloat16
    assert held["right"].dtype == torch.bool
    torch.testing.assert_close(held["resid"], written.torch("resid"), rtol=0, atol=0, equal_nan=True)
    assert held["layer"].tolist() == [0, 1, 2, 3, 4]
    assert metadata["dims"]["resid"] == ["layer", "pair", "token", "hidden"]
    assert metadata["labels"]["clean"] == PROMPTS
    assert metadata["attributes"] == {"job": 7}


def test_npz_holds_every_array_without_pickles(written: Results, tmp_path: Path) -> None:
    path = tmp_path / "7.npz"
    assert export(written, path, "npz") == ()
    with np.load(path, allow_pickle=False) as held:
        assert held["clean"].tolist() == PROMPTS
        np.testing.assert_array_equal(held["resid"], written["resid"][...])
        np.testing.assert_array_equal(held["task_status"], written.status())


def test_parquet_is_the_table_with_its_gaps(written: Results, tmp_path: Path) -> None:
    path = tmp_path / "7.parquet"
    assert export(written, path, "parquet") == ("resid", "top")
    pandas.testing.assert_frame_equal(pandas.read_parquet(path), written.dataframe(), check_dtype=False)


def test_csv_is_the_table_with_empty_cells_for_failed_tasks(written: Results, tmp_path: Path) -> None:
    path = tmp_path / "7.csv"
    assert export(written, path, "csv") == ("resid", "top")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "task,layer,pair,clean,ids,loss,right,task_status"
    assert lines[1 + FAILED] == "4,1,1,Größe,[3],,,failed"
    assert lines[1 + 8] == '8,2,2,,"[4, 5]",2.0,True,saved'


def test_what_cannot_be_exported_is_told(written: Results, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be exported to 'cvs'") as raised:
        export(written, tmp_path / "7.cvs", "cvs")
    assert raised.value.hint == "did you mean 'csv'?"
    with pytest.raises(NotFoundError, match="there is no directory"):
        export(written, tmp_path / "nowhere" / "7.csv", "csv")
    path = tmp_path / "8.zarr"
    create(path, ArchiveSpec((), (), (ArraySpec.saved("x", "float32", (3,)),)))
    with pytest.raises(UsageError, match="no save is a single number"):
        export(Results(path), tmp_path / "8.csv", "csv")
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".zarr"] == []


def test_parquet_without_pyarrow_says_what_to_install(
    written: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="parquet needs pyarrow") as raised:
        export(written, tmp_path / "7.parquet", "parquet")
    assert raised.value.hint == "pip install 'ndif-batch[export]'"
