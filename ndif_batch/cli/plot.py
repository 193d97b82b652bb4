"""Draws results into a PNG with matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ndif_batch.cli.picture import Axis, Picture
from ndif_batch.errors import UnavailableError

MAX_TICKS = 40
DPI = 150


def save_plot(picture: Picture, path: Path) -> None:
    """A line for one dimension, a heat map for two; ``UnavailableError`` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnavailableError("matplotlib is not installed", hint="pip install 'ndif-batch[plot]'") from None
    figure = Figure(figsize=_figure_size(picture), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(picture.title, parse_math=False)
    if picture.values.ndim == 2:
        rows, columns = picture.axes
        low, high = picture.limits
        colours = "RdBu_r" if picture.signed else "viridis"
        image = axes.imshow(picture.values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=axes)
        axes.set_yticks(*_ticks(rows), parse_math=False)
        axes.set_ylabel(rows.name, parse_math=False)
    elif picture.values.ndim == 1:
        (columns,) = picture.axes
        axes.plot(np.arange(len(picture.values)), picture.values, marker="o")
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.grid(alpha=0.3)
    else:
        raise UnavailableError("a single value has no plot")
    axes.set_xticks(*_ticks(columns), rotation=_rotation(columns), parse_math=False)
    axes.set_xlabel(columns.name, parse_math=False)
    figure.savefig(path, dpi=DPI)


def _figure_size(picture: Picture) -> tuple[float, float]:
    """Inches."""
    if picture.values.ndim < 2:
        return 8.0, 4.5
    rows, columns = picture.values.shape
    return float(np.clip(2.5 + 0.32 * columns, 5, 16)), float(np.clip(1.8 + 0.2 * rows, 3.5, 12))


def _ticks(axis: Axis) -> tuple[list[int], list[str]]:
    step = max(1, -(-len(axis.labels) // MAX_TICKS))
    places = list(range(0, len(axis.labels), step))
    labels = (
        [f"{place} {text}" for place, text in zip(axis.labels, axis.tokens, strict=True)]
        if axis.tokens
        else axis.labels
    )
    return places, [labels[place] for place in places]


def _rotation(axis: Axis) -> float:
    return 90.0 if axis.tokens or max(map(len, axis.labels)) > 3 else 0.0
