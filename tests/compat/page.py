"""The pairs of code blocks of docs/from-nnsight.md, and their run both ways and in ours."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "docs" / "from-nnsight.md"
_BLOCK = re.compile(r"^```python (\w+)\n(.*?)^```\n(?=\n?([^\n]*))", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block: the word after ``python``, the line where it begins, and the line of text after it."""

    kind: str
    line: int
    code: str
    after: str


def blocks() -> list[Block]:
    """All blocks of the page, in its order."""
    text = FILE.read_text()
    return [
        Block(found[1], text[: found.start()].count("\n") + 2, found[2], found[3]) for found in _BLOCK.finditer(text)
    ]


def pairs() -> Iterator[tuple[Block, Block]]:
    """nnsight's blocks, each with ours after it."""
    known = [block for block in blocks() if block.kind not in ("setup", "refused")]
    yield from zip(known[::2], known[1::2], strict=True)


def refused() -> list[Block]:
    """nnsight's blocks that cannot be recorded."""
    return [block for block in blocks() if block.kind == "refused"]


def run(block: Block, way: str, names: dict[str, Any]) -> dict[str, Any]:
    """What a block binds that knows ``names``, run where nnsight can read its source."""
    source = "\n" * (block.line - 1) + block.code
    file = f"<{FILE.name}, {way} {block.line}>"
    names = {name: import_module(name) for name in ("nnsight", "torch")} | names
    lines = source.splitlines(keepends=True)
    linecache.cache[file] = (len(source), None, lines, file)
    scope = {"__name__": "page", **names}
    exec(compile(source, file, "exec"), scope)
    return {key: value for key, value in scope.items() if key not in names and not key.startswith("__")}
