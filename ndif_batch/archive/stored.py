"""A saved tensor as its array holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.errors import TaskError


def all_stored(saves: Mapping[str, Any], arrays: Iterable[ArraySpec]) -> dict[str, np.ndarray[Any, Any]]:
    """A task's saves as their arrays hold them; ``KeyError`` if one is missing, ``TaskError`` as :func:`as_stored`."""
    return {array.name: as_stored(saves[array.name], array) for array in arrays}


def as_stored(value: Any, array: ArraySpec) -> np.ndarray[Any, Any]:
    """A tensor as its array holds it; ``TaskError`` if it does not fit what was found before the job was queued."""
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    found = np.asarray(value)
    if found.shape == array.shape and found.dtype == array.dtype:
        return found
    if found.dtype == np.bool_:
        found = found.view(np.uint8)
    lengths = list(enumerate(zip(found.shape, array.shape, strict=False)))
    fits = found.ndim == len(array.shape) and all(
        size == longest or (axis in array.ragged and size < longest) for axis, (size, longest) in lengths
    )
    if not fits or found.dtype != array.dtype:
        raise TaskError(
            f"{array.name!r} came out as {found.dtype}{list(found.shape)}; "
            f"the archive has room for {array.dtype}{list(array.shape)}"
        )
    return found
