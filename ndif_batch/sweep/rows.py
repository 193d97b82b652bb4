"""Reads tables of parameter values from JSONL, JSON, CSV and YAML files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ndif_batch.errors import SweepError, nearest
from ndif_batch.graph.nodes import Value
from ndif_batch.sweep.marked import FIRST, load_yaml, read_text, typed

Item = TypeVar("Item")

AT_ONCE = 1024
PLAIN = {bool, int, float, str}
FORMATS = (".jsonl", ".json", ".csv", ".yaml", ".yml")


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Value]]:
    """The columns ``names`` of a file of rows, each as long as the file has rows.

    A row is a JSON object, a line of CSV below its header, or an item of a YAML list. Where only one column is asked
    for, a row may be the value itself.
    """
    columns: dict[str, list[Value]] = {name: [] for name in names}
    for some in _parts(path, names):
        for name, values in some.items():
            columns[name] += values
    if not columns[names[0]]:
        raise SweepError("the file has no rows", file=str(path))
    return columns


def _parts(path: Path, names: Sequence[str]) -> Iterator[Mapping[str, Sequence[Value]]]:
    """The columns, some rows at a time."""
    if path.suffix.lower() == ".csv":
        yield from _csv(path, names)
        return
    for lines, block in _blocks(path):
        yield _plain(block, names) or _checked(block, lines, names, str(path))


def _plain(block: Sequence[Any], names: Sequence[str]) -> dict[str, list[Value]] | None:
    """The columns of rows that hold nothing but numbers and text under these names; None if some do not."""
    try:
        found = {name: [row[name] for row in block] for name in names}
    except (KeyError, TypeError):
        return None
    kinds = {kind for values in found.values() for kind in set(map(type, values))}
    return found if kinds <= PLAIN else None


def _checked(block: Sequence[Any], lines: Sequence[int], names: Sequence[str], file: str) -> dict[str, list[Value]]:
    """The columns of rows, looked at one by one."""
    columns: dict[str, list[Value]] = {name: [] for name in names}
    for line, given in zip(lines, block, strict=True):
        row = given
        if not isinstance(row, dict) and len(names) == 1:
            row = {names[0]: row}
        if not isinstance(row, dict):
            raise SweepError(
                f"a row must name {', '.join(names)}", file=file, line=line, hint='write {"name": value, …}'
            )
        for name in names:
            if name not in row:
                hint = nearest(name, map(str, row))
                raise SweepError(f"the row has no column {name!r}", file=file, line=line, hint=hint)
            columns[name].append(_cell(row[name], name, file, line))
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


def _blocks(path: Path) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    """Rows, some at a time, with the line of each, counted from 1."""
    match path.suffix.lower():
        case ".jsonl":
            return _jsonl(path)
        case ".json":
            return _json(path)
        case ".yaml" | ".yml":
            return _yaml(path)
        case other:
            raise SweepError(
                f"files {other or 'without a suffix'} are not read", file=str(path), hint=f"use {', '.join(FORMATS)}"
            )


def _jsonl(path: Path) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    for some in _some(enumerate(_lines(path), start=1)):
        numbered = [(number, text) for number, line in some if (text := line.strip())]
        yield [number for number, _ in numbered], _together(numbered, path)


def _together(numbered: Sequence[tuple[int, str]], path: Path) -> list[Any]:
    """The rows of lines: decoded at once if they look like one object each, which is four times as fast."""
    if all(text[0] == "{" and text[-1] == "}" for _, text in numbered):
        with suppress(json.JSONDecodeError):
            rows: list[Any] = json.loads(f"[{','.join(text for _, text in numbered)}]")
            if len(rows) == len(numbered):
                return rows
    return [_decoded(text, path, number) for number, text in numbered]


def _lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines of a file as they are read; errors as of :func:`read_text`."""
    try:
        with open(path, encoding="utf-8", newline=newline) as file:
            yield from file
    except (OSError, UnicodeDecodeError):
        read_text(path)
        raise


def _some(items: Iterator[Item]) -> Iterator[list[Item]]:
    while some := list(islice(items, AT_ONCE)):
        yield some


def _json(path: Path) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    data = _decoded(read_text(path), path, 1)
    if not isinstance(data, list):
        raise SweepError("the file must hold a list of rows", file=str(path), line=1)
    yield [1] * len(data), data


def _decoded(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SweepError(
            f"{error.msg} at column {error.colno}", file=str(path), line=first_line + error.lineno - 1
        ) from None


def _csv(path: Path, names: Sequence[str]) -> Iterator[Mapping[str, Sequence[Value]]]:
    reader = csv.reader(_lines(path, newline=""), strict=True)
    try:
        header = next(reader, [])
        for some in _some((reader.line_num, fields) for fields in reader if fields):
            wrong = next((line for line, fields in some if len(fields) != len(header)), None)
            if wrong is not None:
                raise SweepError("the row has more or fewer fields than the header", file=str(path), line=wrong)
            lacking = next((name for name in names if name not in header), None)
            if lacking is not None:
                hint = nearest(lacking, header)
                raise SweepError(f"the row has no column {lacking!r}", file=str(path), line=some[0][0], hint=hint)
            columns = list(zip(*(fields for _, fields in some), strict=True))
            yield {name: _typed(columns[header.index(name)], name, path, some) for name in names}
    except csv.Error as error:
        raise SweepError(str(error), file=str(path), line=reader.line_num) from None


def _typed(
    column: Sequence[str], name: str, path: Path, numbered: Sequence[tuple[int, Sequence[str]]]
) -> Sequence[Value]:
    """Fields as YAML reads them; empty ones stay text."""
    if not FIRST & {text[:1] for text in column}:
        return column
    digits = "".join(column)
    if digits.isascii() and digits.isdecimal() and all(column):
        return list(map(int, column))
    lines = (line for line, _ in numbered)
    return [
        _cell(typed(text) if text else text, name, str(path), line) for line, text in zip(lines, column, strict=True)
    ]


def _yaml(path: Path) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    document = load_yaml(path)
    if not isinstance(document.data, list):
        raise SweepError("the file must hold a list of rows", file=str(path), line=1)
    yield [document.line((i,)) for i in range(len(document.data))], document.data
