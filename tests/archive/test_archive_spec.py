from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndif_batch
from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, distinct_dims
from ndif_batch.archive.arrays import sentinel, stored_dtype
from ndif_batch.archive.coordinates import coordinates, labels
from ndif_batch.errors import UsageError
from ndif_batch.graph.nodes import TensorRef, Value
from tests.archive.archive_example import example_spec


def test_the_spec_and_the_size_of_an_archive_need_neither_zarr_nor_xarray_nor_torch() -> None:
    code = (
        "import sys, ndif_batch.archive as a; from ndif_batch.archive import ArchiveSpec, archive_size;"
        "print(sorted({'zarr', 'xarray', 'pandas', 'numpy', 'torch'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ndif_batch.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("column", "dtype", "expected"),
    [
        (range(2, 8, 3), "int64", [2, 5]),
        ([3, -1], "int64", [3, -1]),
        ([3, 0.5], "float64", [3.0, 0.5]),
        ([True, False], "bool", [True, False]),
        ([" John", "Größe"], "object", [" John", "Größe"]),
        ([(1, 2), (3,)], "object", ["[1, 2]", "[3]"]),
        ([3, " John"], "object", ["3", " John"]),
        ([TensorRef("ab12"), TensorRef("cd34")], "object", ["ab12", "cd34"]),
        ([2**63, 1], "float64", [2.0**63, 1.0]),
    ],
)
def test_a_column_becomes_the_narrowest_labels_that_say_it(column: Any, dtype: str, expected: list[Any]) -> None:
    found = labels(column)
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == expected


def test_one_parameter_is_the_axis_and_tied_ones_stand_beside_its_count() -> None:
    one = AxisSpec("layer", {"layer": range(3)})
    renamed = AxisSpec("depth", {"layer": [4, 5]})
    tied = AxisSpec("pair", {"clean": ["a", "b"], "answer": [7, 8]})
    led = AxisSpec("prompt", {"prompt": ["a", "b"], "answer": [7, 8]})
    assert [c.name for c in coordinates(one)] == ["layer"]
    assert [(c.name, c.dim, c.parameter) for c in coordinates(renamed)] == [("depth", "depth", "layer")]
    assert [(c.name, c.dim, c.values.tolist()) for c in coordinates(tied)] == [
        ("pair", "pair", [0, 1]),
        ("clean", "pair", ["a", "b"]),
        ("answer", "pair", [7, 8]),
    ]
    assert [c.name for c in coordinates(led)] == ["prompt", "answer"]


def test_equal_archives_have_equal_digests_however_their_values_are_held() -> None:
    def spec(column: Any, **attributes: Any) -> ArchiveSpec:
        return ArchiveSpec(
            (AxisSpec("layer", {"layer": column}),), (3,), (ArraySpec.saved("x", "float32"),), attributes
        )

    assert (
        spec(range(3), a=1, b=[2]).digest == spec([0, 1, 2], b=[2], a=1).digest == spec((0, 1, 2), a=1, b=(2,)).digest
    )
    assert spec(range(3)).digest != spec([0, 1, 3]).digest
    assert spec(range(3)).digest != spec([0.5, 1, 2]).digest
    assert spec(range(3)).digest != spec(range(3), job=7).digest


def test_a_tensor_is_told_apart_from_the_text_of_its_digest() -> None:
    def spec(value: Value) -> ArchiveSpec:
        return ArchiveSpec((AxisSpec("v", {"v": [value]}),), (1,), ())

    assert spec(TensorRef("ab")).digest != spec("ab").digest


def test_arrays_survive_json() -> None:
    for array in example_spec().arrays:
        assert ArraySpec.from_json(array.to_json()) == array


@pytest.mark.parametrize(
    ("source", "stored", "missing"),
    [("bfloat16", "float32", None), ("bool", "uint8", 255), ("int64", "int64", -(2**63)), ("int8", "int8", -128)],
)
def test_each_dtype_is_stored_where_its_values_and_a_sentinel_fit(
    source: str, stored: str, missing: int | None
) -> None:
    assert stored_dtype(source) == stored
    assert missing is None or sentinel(stored) == missing
    assert ArraySpec.saved("x", source).dtype == stored


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"when": object()}, "'when' is not JSON"),
        ({"loss": float("nan")}, "'loss' is not JSON"),
        ({"coordinates": "mine"}, "'coordinates' is the archive's own"),
        ({"ndif_batch": {}}, "'ndif_batch' is the archive's own"),
    ],
)
def test_attributes_that_json_cannot_hold_are_refused_by_name(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ArchiveSpec((), (), (), attributes)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ArraySpec.saved("layer", "float32"), "two arrays of the archive would be called 'layer'"),
        (ArraySpec.saved("task_status", "float32"), "two arrays of the archive would be called 'task_status'"),
        (ArraySpec.saved("a/b", "float32"), "'a/b' cannot name an array"),
        (ArraySpec.saved("..", "float32"), "'..' cannot name an array"),
        (ArraySpec.saved("x", "float32", (3,), ("layer",)), "dimension 'layer' already means something else"),
        (ArraySpec.saved("x", "float32", (3,), ("answer",)), "dimension 'answer' already means something else"),
        (ArraySpec.saved("x", "float32", (3,), ("token",)), "dimension 'token' already means something else"),
    ],
)
def test_names_that_would_mean_two_things_are_refused(array: ArraySpec, message: str) -> None:
    axes = (AxisSpec("layer", {"layer": range(2)}), AxisSpec("pair", {"prompt": ["a"], "answer": [1]}))
    with pytest.raises(UsageError, match=message):
        ArchiveSpec(axes, (2, 1), (ArraySpec.saved("y", "float32", (4,), ("token",)), array))


def test_own_dimensions_that_clash_are_renamed_after_their_save() -> None:
    axes = (AxisSpec("layer", {"layer": range(2)}),)
    arrays = (
        ArraySpec.saved("x", "float32", (3, 5), ("layer", "token")),
        ArraySpec.saved("y", "float32", (5,), ("token",)),
        ArraySpec.saved("z", "float32", (4, 2), ("token", "y"), ragged=(0,)),
    )
    renamed = distinct_dims(axes, arrays)
    assert [array.dims for array in renamed] == [("x_layer", "token"), ("token",), ("z_token", "z_y")]
    assert renamed[2].ragged == (0,)
    ArchiveSpec(axes, (2,), renamed)


@pytest.mark.parametrize(
    "array",
    [
        lambda: ArraySpec.saved("x", "complex64"),
        lambda: ArraySpec("x", "bfloat16", "bfloat16"),
        lambda: ArraySpec.saved("x", "float32", (1, 2), ("a",)),
        lambda: ArraySpec.saved("x", "float32", (1, 2), ("a", "a")),
        lambda: ArraySpec.saved("x", "float32", (1, 2), ragged=(2,)),
    ],
)
def test_an_array_that_cannot_be_stored_is_refused_by_name(array: Any) -> None:
    with pytest.raises(UsageError, match="save 'x'"):
        array()
