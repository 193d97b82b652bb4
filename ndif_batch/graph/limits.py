"""How large a graph may be: every bound in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from ndif_batch.errors import GraphError, SettingsError, nearest
from ndif_batch.graph.rules import Rule

MAX_DEPTH = 64
"""Deeper arguments are not even read, whatever ``Limits.depth`` is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest graph that is accepted. A site changes a limit under ``[limits]`` in the settings file."""

    bytes: int = 4 * 2**20
    """Bytes of the graph as JSON."""
    depth: int = 8
    """Lists and slices inside each other in one argument."""
    nodes: int = 10_000
    runs: int = 64
    params: int = 256
    saves: int = 64
    constants: int = 64
    """Different constant tensors."""
    constant_bytes: int = 256 * 2**20
    """Bytes of all constant tensors together."""
    tokens: int = 131_072
    """Tokens of a prompt that is written into the graph as token ids."""
    prompt: int = 1_000_000
    """Characters of a prompt that is written into the graph as text."""
    inputs: int = 64
    """Tensors of a prompt that is given as tensors."""
    string: int = 1024
    """Characters of any other string: a site, an ``einsum`` equation, a name."""
    arguments: int = 1024
    """Positional and keyword arguments of one node."""
    list: int = 4096
    """Items of one list."""
    index: int = 64
    """Items of one index."""
    dims: int = 64
    """Named dimensions of one save."""
    steps: int = 4096
    """Generation steps of one run."""

    @classmethod
    def of(cls, changes: Mapping[str, int]) -> Limits:
        """The defaults with ``changes``; ``SettingsError`` names a limit that does not exist."""
        known = [field.name for field in fields(cls)]
        for name in changes:
            if name not in known:
                raise SettingsError(f"there is no limit {name!r}", hint=nearest(name, known))
        return cls(**changes)

    def check(self, name: str, count: int, *, node: int | None = None, where: str = "") -> None:
        """Raises ``GraphError`` when ``count`` is over the limit called ``name``; ``where`` says what was counted."""
        limit: int = getattr(self, name)
        if count > limit:
            subject = f"{where}: " if where else ""
            raise GraphError(
                f"{subject}{name} is {count:,}, the limit is {limit:,}",
                rule=Rule.LIMIT,
                node=node,
                hint=f"make the graph smaller, or raise `{name}` under [limits] in the settings file",
            )


DEFAULT = Limits()
