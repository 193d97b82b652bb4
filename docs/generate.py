"""Writes the reference pages that follow from the code: the command line and the operations."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ndif_batch.graph.operations import FAMILIES, Operation
from ndif_batch.graph.operations.operation import MAX_DIMENSIONS, MAX_ELEMENTS
from ndif_batch.graph.signatures import TYPE_DOCS

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Written by `make docs`. Change the code, not this page. -->"


def pages() -> dict[str, str]:
    """Each page's name and text."""
    return {"cli.md": cli(), "operations.md": operations()}


def cli() -> str:
    """Every command with its arguments and options."""
    typer = str(Path(sys.executable).with_name("typer"))
    command = [typer, "ndif_batch.cli.main", "utils", "docs", "--name", "ndif-batch"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = re.sub(r"^\* `--(install|show)-completion`.*\n", "", html.unescape(done.stdout), flags=re.MULTILINE)
    return f"{NOTE}\n\n{text.strip()}\n"


def operations() -> str:
    """Every operation of the table, by family."""
    return "\n".join([NOTE, "", *_operations()])


def _operations() -> Iterator[str]:
    yield "# Operations of a graph\n"
    yield "Everything that an intervention graph can say. Names and arguments are torch's where torch has them.\n"
    yield (
        "Results follow torch in shape and dtype. Where torch would raise because of a shape or a type, the graph is"
        " refused before it runs. So is a result of more than"
        f" {MAX_ELEMENTS:,} elements or {MAX_DIMENSIONS} dimensions.\n"
    )
    yield "| type | an argument of it is |\n|---|---|"
    yield from (f"| `{kind}` | {meaning} |" for kind, meaning in TYPE_DOCS.items())
    yield "\nA default of `None` means that `None` may be given, too.\n"
    for family, members in FAMILIES.items():
        yield f"## {family}\n\n| operation | meaning |\n|---|---|"
        yield from map(_row, members)
        yield ""


def _row(operation: Operation) -> str:
    fields = f" (fields: {', '.join(operation.fields)})" if operation.fields else ""
    text = f"{operation.doc}{fields}".replace("|", "\\|")
    return f"| `{operation}` | {text} |"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, text in pages().items():
        (folder / name).write_text(text)
