"""Compares what a task saved with what it saves alone, and says whether rounding explains the difference."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.verified import Deviation, Verified

Values: TypeAlias = "Mapping[str, np.ndarray[Any, Any]]"

TOLERANCE: Mapping[str, float] = {"float64": 1e-8, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.1}
"""What rounding alone may make of values in another company, as a share of the largest value of their tensor."""

PIECE = 2**20
"""Values that are compared at a time."""

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
    return a.dtype.kind != "f" or all(_have_same_kinds(*pieces) for pieces in _pieces(a, b))


def _have_same_kinds(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    finite = np.isfinite(a)
    return np.array_equal(finite, np.isfinite(b)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)


def _apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The largest difference of finite values, and the scale of the second tensor: 1 if it has none."""
    apart = scale = -1.0
    for one, other in _pieces(a, b):
        finite = np.isfinite(other)
        x, y = one[finite].astype(np.float64), other[finite].astype(np.float64)
        with np.errstate(over="ignore"):
            apart = max(apart, float(np.abs(x - y).max(initial=-1.0)))
        scale = max(scale, float(np.abs(y).max(initial=-1.0)))
    return (min(apart, sys.float_info.max), max(scale, LEAST_SCALE)) if scale >= 0 else (0.0, 1.0)


def _pieces(*tensors: np.ndarray[Any, Any]) -> Iterator[list[np.ndarray[Any, Any]]]:
    """Tensors of one shape piece by piece, so that comparing takes little memory beside them."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    for first in range(0, flat[0].size, PIECE):
        yield [one[first : first + PIECE] for one in flat]
