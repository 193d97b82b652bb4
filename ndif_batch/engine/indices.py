"""What can be said of an index before there is a tensor: one part for each axis, and the positions that it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ndif_batch.graph.nodes import Arg, ParamRef, ParamType, SliceArg

WHOLE = SliceArg()


def one_part_an_axis(index: Sequence[Any], axes: int) -> tuple[Any, ...] | None:
    """The index with ``...`` and missing parts written out; ``None`` if it adds axes or has too many parts."""
    dots = [i for i, part in enumerate(index) if part is ...]
    if len(dots) > 1 or any(part is None for part in index):
        return None
    missing = axes - (len(index) - len(dots))
    if missing < 0:
        return None
    at = dots[0] if dots else len(index)
    return (*index[:at], *[WHOLE] * missing, *index[at + len(dots) :])


def plain_parts(index: Sequence[Arg], axes: int, params: Mapping[str, ParamType]) -> tuple[Arg, ...] | None:
    """One part for each axis if each is an int, an int parameter or a slice of such; else ``None``."""
    parts = one_part_an_axis(index, axes)
    return parts if parts is not None and all(_is_plain(part, params) for part in parts) else None


def _is_plain(part: Arg, params: Mapping[str, ParamType]) -> bool:
    if isinstance(part, SliceArg):
        return all(value is None or _is_number(value, params) for value in (part.start, part.stop, part.step))
    return _is_number(part, params)


def _is_number(part: Arg, params: Mapping[str, ParamType]) -> bool:
    if isinstance(part, ParamRef):
        return params[part.param] is ParamType.INT
    return type(part) is int


def positions(part: int | slice, length: int) -> range:
    """The positions that an evaluated part of an index takes of an axis; ``IndexError`` in torch's words."""
    if isinstance(part, slice):
        if part.step is not None and part.step <= 0:
            raise ValueError("slice step must be positive")
        return range(length)[part]
    if not -length <= part < length:
        raise IndexError(f"index {part} is out of bounds for dimension of the {length} tokens")
    return range(part % length, part % length + 1)
