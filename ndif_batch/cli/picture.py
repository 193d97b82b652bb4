"""What a picture of results shows: an array of at most two dimensions, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a picture: its name, a label for each place, and the prompt's tokens there if it has any."""

    name: str
    labels: Sequence[str]
    tokens: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """``values`` has one dimension for each of ``axes``; NaN where nothing was saved."""

    title: str
    values: Numbers
    axes: tuple[Axis, ...]

    @property
    def finite(self) -> Numbers:
        """The values that are numbers, in one dimension."""
        flat: Numbers = self.values[np.isfinite(self.values)]
        return flat

    @property
    def signed(self) -> bool:
        """Whether values lie on both sides of zero, so that zero deserves the middle of the colours."""
        return bool(self.finite.size) and bool(self.finite.min() < 0 < self.finite.max())

    @property
    def limits(self) -> tuple[float, float]:
        """The values at the ends of the colours; equally far from zero for signed data."""
        if not self.finite.size:
            return 0.0, 1.0
        low, high = float(self.finite.min()), float(self.finite.max())
        if self.signed:
            far = max(-low, high)
            return -far, far
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def short(value: float, width: int) -> str:
    """A number in at most ``width`` characters, as precise as they allow; ``#`` when it does not fit."""
    if not np.isfinite(value):
        return "·"
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
