"""What counts as rounding between a task in company and alone, and what is kept of many comparisons."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import ArraySpec, Deviation, Judge, Verified, merged


def f32(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value, dtype=np.float32)


def f64(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value, dtype=np.float64)


def compare(seen: Any, alone: Any, saved: str = "float32", model: str = "float32") -> Verified:
    judge = Judge([ArraySpec.saved("x", saved, np.shape(alone))], model)
    return judge.compare(4, {"x": np.asarray(seen)}, {"x": np.asarray(alone)})


def test_the_largest_deviation_is_told_in_its_unit_and_relative_to_the_tensor() -> None:
    found = compare(f32([100, 2.5, 0]), f32([100, 2, 0]))
    assert found == Verified(1, (Deviation("x", 4, 0.5, 0.005),), (4,))
    assert compare(f32([100, 2.001]), f32([100, 2])).deviating == ()


@pytest.mark.parametrize(
    ("saved", "model", "apart", "deviates"),
    [
        ("float32", "float32", 1e-5, False),
        ("float32", "float32", 1e-3, True),
        ("float64", "float64", 1e-5, True),
        ("bfloat16", "bfloat16", 0.05, False),
        ("float32", "bfloat16", 0.05, False),
        ("float32", "bfloat16", 0.5, True),
    ],
)
def test_rounding_is_that_of_the_coarser_of_model_and_save(
    saved: str, model: str, apart: float, deviates: bool
) -> None:
    value = np.array([1.0, 0.25])
    assert compare(value + apart, value, saved, model).deviating == ((4,) if deviates else ())


def test_what_is_left_when_numbers_cancel_is_rounding() -> None:
    assert compare(f32(2e-6), f32(0.0)).deviating == ()


@pytest.mark.parametrize(
    ("seen", "alone", "deviates"),
    [
        ([np.nan, 1], [np.nan, 1], False),
        ([np.inf, 1], [np.inf, 1], False),
        ([np.inf, 1], [-np.inf, 1], True),
        ([np.nan, 1], [0, 1], True),
        ([0, 1], [np.nan, 1], True),
        ([1, 2, 3], [1, 2], True),
        ([], [], False),
    ],
)
def test_nan_infinity_and_shape_must_be_the_same(seen: list[float], alone: list[float], deviates: bool) -> None:
    found = compare(f32(seen), f32(alone))
    assert found.deviating == ((4,) if deviates else ())
    json.dumps(found.to_json(), allow_nan=False)


def test_integers_are_exact_unless_the_model_rounds_so_coarsely_that_ties_decide() -> None:
    for saved, dtype in (("int64", np.int64), ("bool", np.uint8)):
        one, other = np.array([1, 0], dtype), np.array([0, 1], dtype)
        assert compare(one, other, saved).deviating == (4,)
        assert compare(one, one, saved).deviating == ()
        assert compare(one, other, saved, "bfloat16").deviating == ()


def test_a_task_that_fails_only_in_company_deviates() -> None:
    judge, value = Judge([ArraySpec.saved("x", "float32")], "float32"), {"x": f32(1)}
    assert judge.compare(4, None, value).deviating == judge.compare(4, value, None).deviating == (4,)
    assert judge.compare(4, None, None) == Verified(1)


def test_the_largest_numbers_that_there_are_stay_numbers() -> None:
    assert compare(f64([1e308]), f64([-1e308]), "float64").deviations[0].absolute < float("inf")


def test_checks_merge_to_the_largest_in_any_order() -> None:
    checks = [
        Verified(2, (Deviation("a", 1, 0.1, 0.01), Deviation("b", 1, 3.0, 0.5)), (1,)),
        Verified(1, (Deviation("a", 7, 0.05, 0.02),)),
        Verified(1, (), (5,)),
    ]
    expected = Verified(4, (Deviation("a", 7, 0.05, 0.02), Deviation("b", 1, 3.0, 0.5)), (1, 5))
    assert merged(checks) == merged(reversed(checks)) == expected
    assert merged([]) == Verified()
    assert Verified.from_json(json.loads(json.dumps(expected.to_json()))) == expected
