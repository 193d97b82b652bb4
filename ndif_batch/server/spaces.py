"""Parameter spaces that strangers send: read only if every value is one that a parameter can have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ndif_batch.errors import UsageError
from ndif_batch.graph.nodes import Inputs, TensorRef
from ndif_batch.graph.validate import check_inputs
from ndif_batch.sweep.space import Space

MOST_TASKS = 10_000_000
"""The largest job that is planned here."""


def space_from(data: Mapping[str, Any]) -> Space:
    """The space that JSON describes; ``UsageError`` for any other JSON, and for more than ``MOST_TASKS`` tasks."""
    try:
        space = Space.from_json(data)
        size = space.size
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"the space is not one: {error!r}") from None
    if size > MOST_TASKS:
        raise UsageError(f"{size:,} tasks are too many for one job", hint=f"at most {MOST_TASKS:,}")
    for axis in space.axes:
        _require(isinstance(axis.name, str), "an axis has a name")
        for name, values in axis.columns.items():
            _require(isinstance(values, range) or all(map(_plain, values)), f"a value of {name!r} cannot be one")
    for name, value in space.constants.items():
        _require(_plain(value), f"the value of {name!r} cannot be one")
    return space


def _plain(value: object) -> bool:
    if isinstance(value, TensorRef):
        return isinstance(value.digest, str)
    if isinstance(value, Inputs):
        check_inputs(value, "a prompt")
        return True
    if isinstance(value, tuple):
        return all(type(item) is int for item in value)
    return isinstance(value, str | int | float)


def _require(fine: bool, what: str) -> None:
    if not fine:
        raise UsageError(f"the space is not one: {what}")
