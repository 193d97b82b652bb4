"""Parameter values as the coordinate arrays of an axis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ndif_batch.archive.spec import AxisSpec
from ndif_batch.graph.nodes import Inputs, TensorRef, Value

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Coordinate:
    """The labels of one parameter along one axis, ``values`` of shape [axis]; text has numpy's object dtype."""

    name: str
    dim: str
    parameter: str | None
    values: np.ndarray[Any, Any]


def coordinates(axis: AxisSpec) -> list[Coordinate]:
    """The coordinates of an axis: one named as the axis, or one for each of several tied parameters."""
    return [
        Coordinate(name, axis.name, param, labels(range(len(axis)) if param is None else axis.columns[param]))
        for name, param in axis.coordinates.items()
    ]


def labels(column: Sequence[Value]) -> np.ndarray[Any, Any]:
    """A column as bool, int64 or float64 where every value is one; otherwise as text.

    Text stays as it is; token ids become a JSON list, a tensor its digest, a prompt of tensors
    theirs as a JSON object, and a number among texts its JSON.
    """
    if isinstance(column, range):
        return np.arange(column.start, column.stop, column.step, dtype=np.int64)
    kinds = {type(value) for value in column}
    if kinds == {bool}:
        return np.array(column, dtype=np.bool_)
    if kinds == {int} and all(value in _INT64 for value in column):
        return np.array(column, dtype=np.int64)
    if kinds <= {int, float}:
        return np.array(column, dtype=np.float64)
    return np.array([_text(value) for value in column], dtype=object)


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Inputs):
        return json.dumps(value.digests)
    return value.digest if isinstance(value, TensorRef) else json.dumps(value)
