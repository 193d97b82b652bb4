"""Which part of an array a selection by label or by position means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.errors import NotFoundError, UsageError, nearest

Labels: TypeAlias = "np.ndarray[Any, Any]"
Part: TypeAlias = "int | slice | np.ndarray[Any, Any]"


def select(
    dims: Mapping[str, int],
    coordinates: Mapping[str, str],
    read: Callable[[str], Labels],
    labels: Mapping[str, Any],
    at: Mapping[str, Any],
) -> tuple[Part, ...]:
    """One part for each of ``dims`` (name → length), for orthogonal indexing.

    ``labels`` choose by value: the keys are ``coordinates`` (name → the dimension along which it lies, ``read`` gives
    its values), or dimensions without one, whose labels are their positions. ``at`` chooses dimensions by position.
    A single value drops its dimension, a list or slice keeps it; slices always count positions. Raises
    ``UsageError`` for an unknown key and ``NotFoundError`` for a label or position that is not there.
    """
    masks = {dim: np.ones(length, dtype=np.bool_) for dim, length in dims.items()}
    single = set()
    for key, wanted in (*labels.items(), *at.items()):
        by_label = key in labels and key in coordinates and not isinstance(wanted, slice)
        dim = coordinates.get(key, key) if key in labels else key
        if dim not in dims:
            raise UsageError(
                f"no dimension or coordinate {key!r} to select by", hint=nearest(key, {**dims, **coordinates})
            )
        masks[dim] &= _matching(read(key), wanted, key) if by_label else _standing(dims[dim], wanted, key)
        if not isinstance(wanted, slice | Sequence | np.ndarray) or isinstance(wanted, str):
            single.add(dim)
    return tuple(_part(dim, mask, dim in single) for dim, mask in masks.items())


def _matching(values: Labels, wanted: Any, key: str) -> Labels:
    found = np.zeros(values.shape, dtype=np.bool_)
    for label in [wanted] if isinstance(wanted, str) or not isinstance(wanted, Sequence | np.ndarray) else wanted:
        matches = values == label
        if not np.any(matches):
            raise NotFoundError(f"{key!r} has no label {label!r}", hint=nearest(str(label), map(str, values)))
        found |= matches
    return found


def _standing(length: int, wanted: Any, key: str) -> Labels:
    mask = np.zeros(length, dtype=np.bool_)
    try:
        mask[wanted] = True
    except IndexError:
        raise NotFoundError(f"position {wanted} is outside the {length} of {key!r}") from None
    return mask


def _part(dim: str, mask: Labels, single: bool) -> Part:
    if mask.all() and not single:
        return slice(None)
    positions = np.flatnonzero(mask)
    if not len(positions):
        raise NotFoundError(f"nothing is selected along {dim!r}")
    return int(positions[0]) if single and len(positions) == 1 else positions
