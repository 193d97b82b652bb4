"""Reads tables of parameter values from JSONL, JSON, CSV and YAML files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ndif_batch.errors import SweepError, nearest
from ndif_batch.graph.nodes import Value
from ndif_batch.sweep.marked import load_yaml, read_text, typed

FORMATS = (".jsonl", ".json", ".csv", ".yaml", ".yml")


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Value]]:
    """The columns ``names`` of a file of rows, each as long as the file has rows.

    A row is a JSON object, a line of CSV below its header, or an item of a YAML list. Where only one column is asked
    for, a row may be the value itself.
    """
    columns: dict[str, list[Value]] = {name: [] for name in names}
    rows = 0
    for line, row in _rows(path):
        rows += 1
        if not isinstance(row, dict) and len(names) == 1:
            row = {names[0]: row}
        if not isinstance(row, dict):
            raise SweepError(
                f"a row must name {', '.join(names)}", file=str(path), line=line, hint='write {"name": value, …}'
            )
        for name in names:
            if name not in row:
                raise SweepError(
                    f"the row has no column {name!r}", file=str(path), line=line, hint=nearest(name, map(str, row))
                )
            columns[name].append(_cell(row[name], name, str(path), line))
    if not rows:
        raise SweepError("the file has no rows", file=str(path))
    return columns


def cell(data: Any) -> Value:
    """One value of a parameter from plain data; ``ValueError`` says what it must be."""
    if isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list) and data and all(isinstance(item, int) and not isinstance(item, bool) for item in data):
        return tuple(data)
    raise ValueError("a value is a number, true or false, a text, or a list of token ids")


def _cell(data: Any, name: str, file: str, line: int) -> Value:
    try:
        return cell(data)
    except ValueError as error:
        raise SweepError(str(error), file=file, line=line, key=name) from None


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Each row and its line, counted from 1."""
    match path.suffix.lower():
        case ".jsonl":
            return _jsonl(path)
        case ".csv":
            return _csv(path)
        case ".json":
            return _json(path)
        case ".yaml" | ".yml":
            return _yaml(path)
        case other:
            raise SweepError(
                f"files {other or 'without a suffix'} are not read", file=str(path), hint=f"use {', '.join(FORMATS)}"
            )


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            yield number, _decoded(text, path, number)


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    data = _decoded(read_text(path), path, 1)
    if not isinstance(data, list):
        raise SweepError("the file must hold a list of rows", file=str(path), line=1)
    for row in data:
        yield 1, row


def _decoded(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SweepError(
            f"{error.msg} at column {error.colno}", file=str(path), line=first_line + error.lineno - 1
        ) from None


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, restkey="", restval=None)
    try:
        for row in reader:
            if "" in row or None in row.values():
                raise SweepError(
                    "the row has more or fewer fields than the header", file=str(path), line=reader.line_num
                )
            yield reader.line_num, {name: typed(text) if text.strip() else text for name, text in row.items()}
    except csv.Error as error:
        raise SweepError(str(error), file=str(path), line=reader.line_num) from None


def _yaml(path: Path) -> Iterator[tuple[int, Any]]:
    document = load_yaml(path)
    if not isinstance(document.data, list):
        raise SweepError("the file must hold a list of rows", file=str(path), line=1)
    for i, row in enumerate(document.data):
        yield document.line((i,)), row
