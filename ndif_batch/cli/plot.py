"""Draws results into a PNG with matplotlib."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ndif_batch.client.panels import Panels
from ndif_batch.client.picture import Axis, Picture
from ndif_batch.errors import UnavailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

MOST_PANELS = 12
MAX_TICKS = 40
DPI = 150
WIDEST, HIGHEST = 24.0, 18.0
"""Inches."""

MISSING = "0.8"
"""The grey of what has no number: white is the middle of signed colours."""


def save_plot(panels: Panels, path: Path) -> None:
    """A number, a line for one dimension, a heat map for two; one beside the other where there are more.

    ``UnavailableError`` without matplotlib, or when the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise UnavailableError("matplotlib is not installed", hint="pip install 'ndif-batch[plot]'") from None
    pictures = panels.pictures
    columns = ceil(sqrt(len(pictures)))
    rows = ceil(len(pictures) / columns)
    width, height = _figure_size(pictures[0])
    size = (min(WIDEST, width * columns), min(HIGHEST, height * rows))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    drawn = [_draw(axes, picture) for axes, picture in zip(grid, pictures, strict=False)]
    if drawn[0] is not None:
        figure.colorbar(drawn[0], ax=list(grid))
        if any(np.isnan(picture.values).any() for picture in pictures):
            figure.legend(handles=[Patch(color=MISSING, label="no number")], loc="outside lower right", frameon=False)
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    try:
        figure.savefig(path, dpi=DPI)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"cannot draw into {path}: {error}") from error


def _draw(axes: Axes, picture: Picture) -> ScalarMappable | None:
    """What has the scale of a heat map; None for a line or a number."""
    axes.set_title(_wrapped(picture.title), parse_math=False, fontsize="medium")
    if not picture.axes:
        axes.text(0.5, 0.5, f"{float(picture.values):.6g}", fontsize=36, ha="center", va="center")
        axes.set_axis_off()
        return None
    image = None
    if picture.values.ndim == 2:
        image = _heat_map(axes, picture)
    else:
        _line(axes, picture)
    columns = picture.axes[-1]
    axes.set_xticks(*_ticks(columns), rotation=_rotation(columns), parse_math=False)
    axes.set_xlabel(columns.name, parse_math=False)
    return image


def _heat_map(axes: Axes, picture: Picture) -> ScalarMappable:
    low, high = picture.limits
    colours = "RdBu_r" if picture.signed else "viridis"
    axes.set_facecolor(MISSING)
    axes.set_yticks(*_ticks(picture.axes[0]), parse_math=False)
    axes.set_ylabel(picture.axes[0].name, parse_math=False)
    values = np.clip(picture.values, low, high)
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")


def _line(axes: Axes, picture: Picture) -> None:
    low, high = picture.limits
    axes.plot(np.arange(len(picture.values)), picture.values, marker="o")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylim(min(0.0, low) - 0.05 * (high - low), max(0.0, high) + 0.05 * (high - low))
    axes.grid(alpha=0.3)


def _wrapped(title: str, width: int = 60) -> str:
    """The title in lines of about so many characters; a part after " at " begins one."""
    head, at, where = title.partition(" at ")
    return f"{head}\n{at.strip()} {where}" if at and len(title) > width else title


def _figure_size(picture: Picture) -> tuple[float, float]:
    """Inches of one picture."""
    if picture.values.ndim < 2:
        return 8.0, 4.5
    rows, columns = picture.values.shape
    labels = 0.07 * max(map(len, picture.axes[0].labels))
    return float(np.clip(2.5 + labels + 0.32 * columns, 5, 16)), float(np.clip(1.8 + 0.2 * rows, 3.5, 12))


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
