"""Data on stdout as a table, JSON, JSON lines or CSV; everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000
"""Columns of a console that is not a terminal: nothing is cut."""

Row: TypeAlias = Mapping[str, Any]


class Format(StrEnum):
    """How listings are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


Key: TypeAlias = Annotated[
    str | None, typer.Option("--key", help="Do it once for this key within a day, however often it is asked.")
]
Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="table, json, jsonl or csv.")]


def stdout() -> Console:
    """The console for data."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDE)


def stderr() -> Console:
    """The console for everything that is not data."""
    return Console(file=sys.stderr, highlight=False)


def say(message: str) -> None:
    """One line on stderr."""
    stderr().print(Text(printable(message)), soft_wrap=True)


def printable(value: Any) -> str:
    """Text with control characters escaped: what a user named cannot steer another user's terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(value))


def write_rows(rows: Sequence[Row], columns: Sequence[str], form: Format) -> None:
    """Rows on stdout. ``columns`` are the keys that a table and CSV show; JSON has all keys."""
    match form:
        case Format.TABLE:
            write_table([[_shown(row.get(column)) for column in columns] for row in rows], columns)
        case Format.JSON:
            write_text(json.dumps([dict(row) for row in rows], indent=2, default=str))
        case Format.JSONL:
            for row in rows:
                write_text(json.dumps(dict(row), default=str))
        case Format.CSV:
            import csv
            from io import StringIO

            buffer = StringIO()
            writer = csv.writer(buffer, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_field(row.get(column)) for column in columns] for row in rows)
            write_text(buffer.getvalue().removesuffix("\n"))


def write_table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """A table on stdout."""
    _print(table(rows, columns))


def table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> Table:
    """Columns without lines, as Slurm prints them; numbers to the right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(_numeric(row[i]) for row in rows)
        made.add_column(column.upper(), justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        made.add_row(*(Text(printable(cell).replace("\n", " ")) for cell in row))
    return made


def write_record(record: Row, form: Format) -> None:
    """One thing with its fields below each other; as JSON one object."""
    if form is Format.TABLE:
        lines = Table(box=None, pad_edge=False, show_header=False)
        lines.add_column(style="bold", no_wrap=True)
        lines.add_column(overflow="fold")
        for key, value in record.items():
            lines.add_row(Text(key), Text(printable(_shown(value))))
        _print(lines)
    elif form is Format.CSV:
        write_rows([record], list(record), form)
    else:
        write_text(json.dumps(dict(record), indent=2 if form is Format.JSON else None, default=str))


def _print(lines: Table) -> None:
    console = stdout()
    if console.is_terminal:
        console.print(lines)
        return
    with console.capture() as captured:
        console.print(lines)
    write_text("\n".join(line.rstrip() for line in captured.get().splitlines()))


def write_text(text: str) -> None:
    """Text on stdout as it is, with a line's end."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _field(value: Any) -> Any:
    """A value as a field of CSV."""
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


def _numeric(text: str) -> bool:
    try:
        float(text.rstrip("smhd") or "0")
    except ValueError:
        return False
    return True
