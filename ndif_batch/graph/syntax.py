"""The syntax of a graph's words: names, sites, digests, and the fields that each operation's node has."""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import Repr

LONGEST_NAME = 64
LONGEST_SITE = 512

_SEGMENT = r"(?!__)(?:[A-Za-z0-9_]|\{[A-Za-z_][A-Za-z0-9_]*\})+"
PATH = rf"{_SEGMENT}(?:\.{_SEGMENT})*"
"""A dotted module path; ``{layer}`` stands for a parameter. No segment starts with two underscores."""
SITE = rf"{PATH}\.(?:input|output)"
PARAM_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
RUN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}"
SAVE_NAME = r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}"
DIGEST = r"[0-9a-f]{64}"
RESERVED_SAVES = ("task_status", "zarr.json")
"""What the archive itself puts next to the saved arrays."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The node fields of one operation besides its arguments."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


FIELDS = {
    "read": Fields(("run", "site")),
    "write": Fields(("run", "site"), ("index",)),
    "weight": Fields(("site",)),
    "call": Fields(("site",)),
    "skip": Fields(("run", "site")),
    "stop": Fields(("run",)),
    "steps": Fields(("run",)),
    "save": Fields(("name",), ("dims",)),
    "log": Fields(("name",)),
}
"""Operations that are not here have none."""

NO_VALUE = frozenset({"write", "skip", "stop", "steps", "backward", "save", "log"})
"""Operations whose result no other node can take (only ``grad`` takes a ``backward``)."""


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
