"""A picture as SVG: a heat map for two dimensions, bars for one, a number for none; values show under the pointer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil

import numpy as np

from ndif_batch.client.picture import Axis, Numbers, Picture

MOST = 96
"""Places drawn along a dimension; of more, every second, third, … is."""

CELL, WIDEST, HIGHEST = 18, 640, 360
"""Pixels: of a cell at the most, and of all cells together."""

NARROWEST = 320
"""Pixels that the legend has at the least."""

LETTER, LINE = 6.2, 14
"""Pixels of a label's letter, and from one label to the next."""

MISSING = "#ccc"


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is drawn where: the cell of row 0 and column 0 begins at ``x``, ``y``; pixels."""

    rows: Axis
    columns: Axis
    x: float
    y: float
    width: float
    height: float


def svg(picture: Picture) -> str:
    """The picture, drawn with as many labels as there is room for."""
    if not picture.axes:
        return f"{escape(picture.title)}: <b>{float(picture.values):.6g}</b>"
    values = np.atleast_2d(picture.values)
    steps = [ceil(length / MOST) for length in values.shape]
    rows, columns = picture.axes if picture.values.ndim == 2 else (Axis("", [""]), picture.axes[0])
    frame = _frame(_every(rows, steps[0]), _every(columns, steps[1]))
    drawn = _cells if picture.values.ndim == 2 else _bars
    bottom = frame.y + frame.height * len(frame.rows.labels)
    body = [
        f'<text x="0" y="{LINE - 2}">{escape(picture.title)}</text>',
        *drawn(picture, values[:: steps[0], :: steps[1]], frame),
        *_row_labels(frame),
        *_column_labels(frame, bottom + LINE),
        f'<text x="{frame.x:.0f}" y="{bottom + 2 * LINE:.0f}">{escape(_legend(picture, frame, steps))}</text>',
    ]
    width = frame.x + max(frame.width * len(frame.columns.labels), NARROWEST)
    size = f'width="{width:.0f}" height="{bottom + 2.5 * LINE:.0f}"'
    style = 'font-size="11" font-family="sans-serif" fill="currentColor"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(body)}</svg>'


def _frame(rows: Axis, columns: Axis) -> _Frame:
    margin = LETTER * max(map(len, rows.labels)) + 8
    height = min(CELL, HIGHEST / len(rows.labels)) if rows.name else 4 * CELL
    return _Frame(rows, columns, margin, LINE + 6, min(CELL, WIDEST / len(columns.labels)), height)


def _every(axis: Axis, step: int) -> Axis:
    return Axis(axis.name, axis.labels[::step])


def _cells(picture: Picture, values: Numbers, frame: _Frame) -> Iterator[str]:
    for (i, j), value in np.ndenumerate(values):
        where = f"{frame.rows.name}={frame.rows.labels[i]}, {frame.columns.name}={frame.columns.labels[j]}"
        x, y = frame.x + j * frame.width, frame.y + i * frame.height
        yield _box(picture, float(value), where, (x, y, frame.width, frame.height))


def _bars(picture: Picture, values: Numbers, frame: _Frame) -> Iterator[str]:
    low, high = min(0.0, picture.limits[0]), max(0.0, picture.limits[1])
    scale = frame.height / (high - low)
    for j, value in enumerate(values[0]):
        number = float(np.clip(np.nan_to_num(value), low, high))
        where = f"{frame.columns.name}={frame.columns.labels[j]}"
        x, y = frame.x + j * frame.width, frame.y + scale * (high - max(0.0, number))
        yield _box(picture, float(value), where, (x, y, frame.width, max(1.0, scale * abs(number))))


def _box(picture: Picture, value: float, where: str, place: tuple[float, float, float, float]) -> str:
    fill = MISSING if np.isnan(value) else "rgb({},{},{})".format(*picture.colour(value))
    told = escape(f"{where}: {'no number' if np.isnan(value) else f'{value:.4g}'}")
    x, y, width, height = (f"{pixels:.1f}" for pixels in place)
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"><title>{told}</title></rect>'


def _row_labels(frame: _Frame) -> Iterator[str]:
    for k, label in _spaced(frame.rows.labels, LINE / frame.height):
        y = frame.y + (k + 0.5) * frame.height + 4
        yield f'<text x="{frame.x - 4:.1f}" y="{y:.1f}" text-anchor="end">{escape(label)}</text>'


def _column_labels(frame: _Frame, y: float) -> Iterator[str]:
    longest = max(map(len, frame.columns.labels))
    for k, label in _spaced(frame.columns.labels, (LETTER * longest + 4) / frame.width):
        x = frame.x + (k + 0.5) * frame.width
        yield f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(label)}</text>'


def _spaced(labels: Sequence[str], room: float) -> Iterator[tuple[int, str]]:
    """As many labels, with their places, as do not touch when each needs the ``room`` of so many places."""
    each = max(1, ceil(room))
    return ((k, labels[k]) for k in range(0, len(labels), each))


def _legend(picture: Picture, frame: _Frame, steps: Sequence[int]) -> str:
    low, high = picture.limits
    names = f"{frame.rows.name} by {frame.columns.name}" if frame.rows.name else frame.columns.name
    missing = int(np.isnan(picture.values).sum())
    parts = [names, f"{low:.3g} to {high:.3g}", f"{missing:,} without a number" if missing else ""]
    axes = zip((frame.rows, frame.columns), steps, strict=True)
    parts += [f"every {step}th {axis.name}" for axis, step in axes if step > 1]
    return " · ".join(filter(None, parts))
