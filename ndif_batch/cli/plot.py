"""Draws results into a PNG with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
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
DPI = 150
WIDEST, HIGHEST = 18.0, 14.0
"""Inches."""

LONGEST_NUMBER = 8
"""Characters of a label that is taken for a number."""

LETTER, LINE = 0.085, 0.18
"""Inches of a label's letter, and from one label to the next."""

MISSING = "0.8"
"""The grey of what has no number: white is the middle of signed colours."""


def save_plot(panels: Panels, path: Path) -> None:
    """A number, a line or bars for one dimension, a heat map for two; one beside the other where there are more.

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
    width, height = min(WIDEST / columns, width), min(HIGHEST / rows, height)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    head, titles = _titles([picture.title for picture in pictures])
    if head:
        figure.suptitle(head, parse_math=False)
    drawn = [_draw(*one, (width, height)) for one in zip(grid, pictures, titles, strict=False)]
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


def _titles(titles: Sequence[str]) -> tuple[str, list[str]]:
    """What several titles have in common, and what is left of each; nothing in common for one."""
    if len(titles) == 1:
        return "", [_wrapped(titles[0])]
    head, at, _ = titles[0].partition(" at ")
    if not at or not all(title.startswith(head + at) for title in titles):
        return "", [_wrapped(title) for title in titles]
    return head, [title.removeprefix(head + at) for title in titles]


def _draw(axes: Axes, picture: Picture, title: str, size: tuple[float, float]) -> ScalarMappable | None:
    """What has the scale of a heat map; None for a line, bars or a number. ``size`` is in inches."""
    axes.set_title(title, parse_math=False, fontsize="medium")
    if not picture.axes:
        axes.text(0.5, 0.5, f"{float(picture.values):.6g}", fontsize=36, ha="center", va="center")
        axes.set_axis_off()
        return None
    if picture.values.ndim == 1 and _in_words(picture.axes[0]):
        _bars(axes, picture, size[1])
        return None
    columns = picture.axes[-1]
    turned = bool(columns.tokens) or _in_words(columns)
    room = LINE if turned else LETTER * (max(map(len, columns.labels)) + 1)
    axes.set_xticks(*_ticks(columns, size[0], room), rotation=90 if turned else 0, parse_math=False)
    axes.set_xlabel(columns.name, parse_math=False)
    if picture.values.ndim == 2:
        return _heat_map(axes, picture, size[1])
    _line(axes, picture)
    return None


def _heat_map(axes: Axes, picture: Picture, height: float) -> ScalarMappable:
    low, high = picture.limits
    colours = "RdBu_r" if picture.signed else "viridis"
    axes.set_facecolor(MISSING)
    axes.set_yticks(*_ticks(picture.axes[0], height, LINE), parse_math=False)
    axes.set_ylabel(picture.axes[0].name, parse_math=False)
    values = np.clip(picture.values, low, high)
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")


def _line(axes: Axes, picture: Picture) -> None:
    axes.plot(np.arange(len(picture.values)), picture.values, marker="o", markersize=4)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylim(*_from_zero(picture))
    axes.grid(alpha=0.3)


def _bars(axes: Axes, picture: Picture, height: float) -> None:
    """One below the other, as labels in words need."""
    (axis,) = picture.axes
    low, high = _from_zero(picture)
    axes.barh(np.arange(len(picture.values)), np.clip(np.nan_to_num(picture.values), low, high))
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_yticks(*_ticks(axis, height, LINE), parse_math=False)
    axes.set_ylabel(axis.name, parse_math=False)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _from_zero(picture: Picture) -> tuple[float, float]:
    """The least and the greatest value, or zero, with some room around them."""
    low, high = min(0.0, picture.ends[0]), max(0.0, picture.ends[1])
    room = 0.06 * ((high - low) or 1.0)
    return low - room, high + room


def _wrapped(title: str, width: int = 60) -> str:
    """The title in lines of about so many characters; a part after " at " begins one."""
    head, at, where = title.partition(" at ")
    return f"{head}\n{at.strip()} {where}" if at and len(title) > width else title


def _figure_size(picture: Picture) -> tuple[float, float]:
    """Inches of one picture."""
    if not picture.axes:
        return 4.5, 1.8
    labels = LETTER * max(map(len, picture.axes[0].labels))
    if picture.values.ndim == 1 and _in_words(picture.axes[0]):
        return 5 + labels, float(np.clip(1.2 + 0.3 * len(picture.values), 2, 12))
    if picture.values.ndim == 1:
        return 8.0, 4.5
    rows, columns = picture.values.shape
    below = LETTER * max(map(len, picture.axes[1].labels)) if _in_words(picture.axes[1]) else 0
    return (
        float(np.clip(2.5 + labels + 0.32 * columns, 5, 16)),
        float(np.clip(1.8 + below + 0.2 * rows, 3.5, 12)),
    )


def _ticks(axis: Axis, inches: float, room: float) -> tuple[list[int], list[str]]:
    """Places and labels, as many as have ``room`` along so many ``inches``."""
    texts = [f"{place} {text}" for place, text in zip(axis.labels, axis.tokens, strict=False)] or list(axis.labels)
    least = len(texts) * room / (0.8 * inches)
    step = next(step for power in count() for step in (10**power, 2 * 10**power, 5 * 10**power) if step >= least)
    return list(range(0, len(texts), step)), texts[::step]


def _in_words(axis: Axis) -> bool:
    """Whether its labels are words, which are long, and not numbers."""
    return max(map(len, axis.labels)) > LONGEST_NUMBER
