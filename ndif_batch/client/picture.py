"""What a picture of results shows: an array of at most two dimensions, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

DIVERGING = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Red, green and blue, of ColorBrewer's RdBu and of matplotlib's viridis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a picture: its name, a label for each place, and the prompt's tokens there if it has any."""

    name: str
    labels: Sequence[str]
    tokens: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """``values`` has one dimension for each of ``axes``; NaN where nothing was saved.

    ``span`` are the least and greatest value of all pictures that it stands beside.
    """

    title: str
    values: Numbers
    axes: tuple[Axis, ...]
    span: tuple[float, float] | None = None

    @property
    def finite(self) -> Numbers:
        """The values that are numbers, in one dimension."""
        flat: Numbers = self.values[np.isfinite(self.values)]
        return flat

    @property
    def signed(self) -> bool:
        """Whether values lie on both sides of zero, so that zero deserves the middle of the colours."""
        low, high = self.ends
        return low < 0 < high

    @property
    def limits(self) -> tuple[float, float]:
        """The values at the ends of the colours; equally far from zero for signed data."""
        low, high = self.ends
        if self.signed:
            far = max(-low, high)
            return -far, far
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def place(self, value: float) -> float:
        """Where a number stands between the limits, from 0 to 1."""
        low, high = self.limits
        return float(np.clip((value - low) / (high - low), 0, 1))

    def colour(self, value: float) -> tuple[int, int, int]:
        """Red, green and blue of a number, to 255 each."""
        anchors = np.array(DIVERGING if self.signed else SEQUENTIAL, dtype=float)
        at = self.place(value) * (len(anchors) - 1)
        red, green, blue = (round(float(np.interp(at, range(len(anchors)), anchors[:, i]))) for i in range(3))
        return red, green, blue

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value, of all pictures that it stands beside."""
        if self.span is not None:
            return self.span
        return (float(self.finite.min()), float(self.finite.max())) if self.finite.size else (0.0, 1.0)


def short(value: float, width: int) -> str:
    """A number in at most ``width`` characters, as precise as they allow; ``#`` when it does not fit."""
    if np.isnan(value):
        return "·"
    if np.isinf(value):
        text = f"{value:.0f}"
        return text if len(text) <= width else "#"
    if value == 0:
        return "0"
    for digits in range(3, -1, -1):
        text = f"{value:.{digits}f}"
        text = text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
        if len(text) <= width:
            return text
    text = f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return text if len(text) <= width else "#"


def token_label(piece: str) -> str:
    """A token's text as a label: a leading space as ``␣``, line ends as ``⏎``, what shows nothing escaped."""
    text = piece.replace("\n", "⏎").replace("\t", "⇥")
    text = ("␣" + text[1:]) if text.startswith(" ") else text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
