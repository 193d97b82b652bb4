"""Compares what a task saved with what it saves alone, and says whether rounding explains the difference."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive.spec import ArraySpec
from ndif_batch.archive.verified import Deviation, Verified

Values: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"

TOLERANCE: Mapping[str, float] = {"float64": 1e-8, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}
"""What rounding alone may make of values in another company, as a share of the largest value of their tensor."""

LEAST_SCALE = 0.3
"""The largest value of a tensor counts as at least this: what is left when large numbers cancel is rounding."""


class Judge:
    """Compares tasks of one job. Values of a save may be ``tolerances[save]`` apart, relative to their scale.

    The model's own dtype rounds, too, whatever dtype is saved. If it is a coarse one, integers may be anything: which
    of two almost equal logits is the largest is a matter of rounding.
    """

    def __init__(self, arrays: Sequence[ArraySpec], model_dtype: str) -> None:
        own = TOLERANCE.get(model_dtype, 0.0)
        exact = np.inf if own > TOLERANCE["float32"] else 0.0
        kinds = {array.name: array.source_dtype for array in arrays}
        self.tolerances = {
            name: max(own, TOLERANCE[kind]) if kind in TOLERANCE else exact for name, kind in kinds.items()
        }

    def compare(self, task: int, seen: Values | None, alone: Values | None) -> Verified:
        """What one task saved against what it saves alone, each as stored; None where it failed."""
        if seen is None or alone is None:
            return Verified(1, (), () if seen is alone else (task,))
        found, over = [], False
        for name, tolerance in self.tolerances.items():
            a, b = seen[name], alone[name]
            like = a.shape == b.shape and _same_kinds(a, b)
            absolute, scale = _apart(a, b) if like else (0.0, 1.0)
            relative = min(absolute / scale, sys.float_info.max)
            over |= not like or relative > tolerance
            found.append(Deviation(name, task, absolute, relative))
        return Verified(1, tuple(found), (task,) if over else ())


def _same_kinds(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Whether NaN and infinities are in the same places."""
    if a.dtype.kind != "f":
        return True
    finite = np.isfinite(a)
    return np.array_equal(finite, np.isfinite(b)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)


def _apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The largest difference of finite values, and the scale of the second tensor."""
    finite = np.isfinite(b)
    if not finite.any():
        return 0.0, 1.0
    x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
    with np.errstate(over="ignore"):
        apart = min(float(np.abs(x - y).max()), sys.float_info.max)
    return apart, max(float(np.abs(y).max()), LEAST_SCALE)
