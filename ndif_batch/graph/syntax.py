"""The syntax of a graph's words: names, sites, digests; and how a message shows a value that may be anything."""

from __future__ import annotations

import re
from reprlib import Repr

from ndif_batch.graph.sites import ALL_SITES

LONGEST_SITE = 512

_SEGMENT = r"(?!__)(?:[A-Za-z0-9_]|\{[A-Za-z_][A-Za-z0-9_]*\})+"
PATH = rf"{_SEGMENT}(?:\.{_SEGMENT})*"
"""A dotted module path; ``{layer}`` stands for a parameter. No segment starts with two underscores."""
SITE = rf"{PATH}\.(?:{'|'.join(ALL_SITES)})"
PARAM_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
RUN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}"
SAVE_NAME = r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}"
DIM_NAME = PARAM_NAME
DIGEST = r"[0-9a-f]{64}"
PLACEHOLDER = r"\{([A-Za-z_][A-Za-z0-9_]*)\}"
RESERVED_SAVES = ("task_status", "zarr.json")
"""What the archive itself puts next to the saved arrays."""


class _ShortRepr(Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() <= 64 else f"an integer of {x.bit_length()} bits"


_REPR = _ShortRepr()
_REPR.maxlevel = 2
_REPR.maxtuple = _REPR.maxlist = _REPR.maxdict = 4
_REPR.maxstring = _REPR.maxother = 60


def shown(value: object) -> str:
    """``value`` as a message shows it: short, on one line, without control characters."""
    return _REPR.repr(value)


def cut(message: str, length: int = 300) -> str:
    """``message``, or its beginning if it is longer than ``length``."""
    return message if len(message) <= length else f"{message[: length - 1]}…"


def is_storable(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8 and kept in a database: no NUL, no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
