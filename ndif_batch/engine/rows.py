"""Runs of equal length as rows of one batch: their values as if all tokens lay on one axis, and back again.

Row ``i`` of the batch has the tokens ``i * length`` to ``(i + 1) * length - 1`` of that axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ndif_batch.graph.sites import SiteTensor, SiteValue


def on_one_axis(value: Any, shape: SiteValue, tokens: int, rows: int) -> Any:
    """A site's value as a pack of ``tokens`` tokens has it: the ``shape`` of one run, with the tokens of all rows.

    A tensor whose rows cannot be told apart stays as it is: trials show that it does not hold each run's own values.
    """

    def merged(tensor: torch.Tensor, part: SiteTensor) -> torch.Tensor:
        axes = _axes(tensor.shape, part, tokens, rows)
        if axes is None:
            return tensor
        batch, place = axes
        return tensor.movedim(batch, place).flatten(place, place + 1).unsqueeze(batch)

    return value if rows == 1 else _changed([value], shape, merged)


def in_rows(value: Any, like: Any, shape: SiteValue, tokens: int, rows: int) -> Any:
    """The inverse of :func:`on_one_axis`: ``value`` laid out as ``like``, which is what the model gave."""

    def parted(tensor: torch.Tensor, own: torch.Tensor, part: SiteTensor) -> torch.Tensor:
        axes = _axes(own.shape, part, tokens, rows)
        if axes is None:
            return tensor
        batch, place = axes
        parts = tensor.squeeze(batch)
        return parts.reshape(*parts.shape[:place], rows, -1, *parts.shape[place + 1 :]).movedim(place, batch)

    return value if rows == 1 else _changed([value, like], shape, parted)


def _axes(shape: Sequence[int], alone: SiteTensor, tokens: int, rows: int) -> tuple[int, int] | None:
    """The axis of the rows, and that of the tokens without it; ``None`` if both are one, or there are no rows."""
    if len(alone.token_axes) != 1 or len(shape) != len(alone.shape):
        return None
    (place,) = alone.token_axes
    other = [axis for axis, size in enumerate(alone.at(tokens // rows)) if shape[axis] != size]
    if len(other) != 1 or alone.shape[other[0]] != 1 or shape[other[0]] != rows:
        return None
    return other[0], place - (other[0] < place)


def _changed(values: Sequence[Any], shape: SiteValue, change: Callable[..., torch.Tensor]) -> Any:
    first = values[0]
    if isinstance(shape, tuple):
        parts = zip(*values, shape, strict=True)
        return type(first)(_changed(own, part, change) for *own, part in parts)
    return change(*values, shape) if isinstance(shape, SiteTensor) else first
