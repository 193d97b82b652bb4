"""Draws results in the terminal: bars for one dimension, a heat map for two; readable without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
from rich.color import Color
from rich.console import Group, RenderableType
from rich.style import Style
from rich.text import Text

from ndif_batch.cli.output import printable
from ndif_batch.client.picture import Axis, Numbers, Picture, short

SHADES = " ░▒▓█"
MAX_ROWS = 64
MAX_CELL = 6
MIN_NUMBER = 4
LABEL_HEIGHT = 10
LABEL_WIDTH = 24


def draw(picture: Picture, width: int) -> RenderableType:
    """The picture in ``width`` columns."""
    if picture.values.ndim == 0:
        return Text.assemble((printable(picture.title), "bold"), f"  {float(picture.values):.6g}")
    return _bars(picture, width) if picture.values.ndim == 1 else _heat_map(picture, width)


def _bars(picture: Picture, width: int) -> Group:
    (axis,) = picture.axes
    step = ceil(len(picture.values) / MAX_ROWS)
    labels = [_clipped(label, LABEL_WIDTH) for label in axis.labels[::step]]
    margin = max(map(len, (*labels, axis.name)))
    room = max(8, width - margin - 14)
    low, high = min(0.0, *picture.limits), max(0.0, *picture.limits)
    zero = round(room * -low / (high - low))
    lines = [Text.assemble((f"{axis.name:>{margin}}  ", "bold"), (printable(picture.title), "bold"))]
    for label, value in zip(labels, picture.values[::step], strict=True):
        bar = _bar(float(value), zero, room / (high - low), room)
        number = "·" if np.isnan(value) else f"{value:.4g}"
        lines.append(Text.assemble(f"{label:>{margin}}  ", bar, f" {number:>10}"))
    return Group(*lines, *_skipped(axis.name, step))


def _bar(value: float, zero: int, scale: float, room: int) -> Text:
    length = 0 if np.isnan(value) or not value else round(min(room, max(1, abs(value) * scale)))
    start = max(0, zero - length) if value < 0 else zero
    length = min(length, room - start) if value >= 0 else min(length, zero - start)
    style = "blue" if value < 0 else "red"
    return Text.assemble(" " * start, ("█" * length, style), " " * (room - start - length))


def _heat_map(picture: Picture, width: int) -> Group:
    rows, columns = picture.axes
    row_step = ceil(picture.values.shape[0] / MAX_ROWS)
    labels = [_clipped(label, max(LABEL_WIDTH, width // 3)) for label in rows.labels[::row_step]]
    margin = max(map(len, (*labels, rows.name)))
    room = max(8, width - margin - 1)
    column_step = ceil(picture.values.shape[1] / room)
    values = picture.values[::row_step, ::column_step]
    cell = max(1, min(MAX_CELL, room // values.shape[1]))
    lines = [Text.assemble((printable(picture.title), "bold"), f"   rows: {rows.name}   columns: {columns.name}")]
    lines += _header(columns, column_step, cell, margin, rows.name)
    for label, row in zip(labels, values, strict=True):
        cells = [_cell(picture, float(value), cell) for value in row]
        lines.append(Text.assemble(f"{label:>{margin}} ", *cells))
    return Group(*lines, _legend(picture, margin), *_skipped(rows.name, row_step), *_skipped(columns.name, column_step))


def _header(columns: Axis, step: int, cell: int, margin: int, row_name: str) -> Iterator[Text]:
    """Tokens and labels above their columns: level where they all fit, else letter below letter."""
    for labels in (columns.tokens, columns.labels):
        clipped = [_clipped(label, LABEL_HEIGHT) for label in labels[::step]]
        tall = max(map(len, clipped), default=0)
        last = row_name if labels is columns.labels else ""
        if tall < max(cell, 2):
            yield from ([_header_line(clipped, cell, margin, last)] if clipped else [])
            continue
        for line in range(tall):
            letters = [label.rjust(tall)[line] for label in clipped]
            yield _header_line(letters, cell, margin, last if line == tall - 1 else "")


def _header_line(texts: Sequence[str], cell: int, margin: int, name: str) -> Text:
    return Text(f"{name:>{margin}} " + "".join(f"{text:>{cell}}" for text in texts), style="bold")


def _cell(picture: Picture, value: float, width: int) -> Text:
    if np.isnan(value):
        return Text(short(value, width).rjust(width))
    if width >= MIN_NUMBER:
        text = short(value, width - 1).rjust(width)
    else:
        place = picture.place(value)
        depth = abs(2 * place - 1) if picture.signed else place
        text = SHADES[min(len(SHADES) - 1, int(depth * len(SHADES)))].rjust(width)
        text = f"-{text[1:]}" if value < 0 and width > 1 else text
    return Text(text, style=_style(picture, value))


def _style(picture: Picture, value: float) -> Style:
    red, green, blue = picture.colour(value)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    ink = Color.from_rgb(0, 0, 0) if luminance > 140 else Color.from_rgb(255, 255, 255)
    return Style(color=ink, bgcolor=Color.from_rgb(red, green, blue))


def _legend(picture: Picture, margin: int) -> Text:
    low, high = picture.limits
    steps: Numbers = np.linspace(low, high, 21)
    middle = " 0 " if picture.signed else "   "
    bar = [_cell(picture, float(value), 1) for value in steps]
    centre = Text(middle, style=_style(picture, (low + high) / 2))
    missing = int(np.isnan(picture.values).sum())
    note = f"   · no number: {missing}" if missing else ""
    return Text.assemble(f"{'':>{margin}} {low:.3g} ", *bar[:10], centre, *bar[11:], f" {high:.3g}", note)


def _skipped(name: str, step: int) -> Iterator[Text]:
    if step > 1:
        yield Text(f"every {step}th {name} is shown; choose with --at {name}=…", style="italic")


def _clipped(label: str, width: int) -> str:
    text = printable(label).replace("\n", "⏎")
    return text if len(text) <= width else text[: width - 1] + "…"
