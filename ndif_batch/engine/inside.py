"""Sites inside attention: what goes into it, its weights, and what comes out of it, where tasks touch them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from ndif_batch.engine.pack import NOWHERE, Numbers, Pack
from ndif_batch.models.probe import is_watched, noticed


class Seats(Protocol):
    """Where the tokens of runs lie along an axis; see :class:`ndif_batch.engine.pack.Pack`."""

    @property
    def viewed(self) -> Numbers:
        """How many tokens of each lane's run lie there."""

    @property
    def seen(self) -> Numbers:
        """How many each lane's run has seen."""

    def places(self, lanes: Numbers, positions: Numbers) -> Numbers:
        """Where positions of lanes lie."""


class Attended(Protocol):
    """What attention is computed from."""

    def of(self, lanes: Numbers) -> tuple[Attended, Pack | None, torch.Tensor | None]:
        """The same of some lanes and those from whom they borrow, their pack, and the places of its tokens in the
        pass; ``None`` where it is all of it."""

    def weights(self) -> torch.Tensor:
        """``[1, heads, tokens, tokens of the longest run]``: what each token gives to those that its run has seen."""

    def heads(self, weights: torch.Tensor) -> torch.Tensor:
        """What attention gives with such weights, ``[1, tokens, heads, width]``."""


class Touched(Protocol):
    """What is done inside one attention module while a pass is there."""

    def touches(self, name: str) -> bool:
        """Whether something is done at one of its sites."""

    def visit(self, name: str, value: torch.Tensor, seats: Seats | None = None) -> torch.Tensor:
        """What the site holds afterwards; ``seats`` say where tokens lie if not as in the pass."""

    def visit_pattern(self, attended: Attended) -> Changed | None:
        """What comes out where attention weights were written."""


Changed: TypeAlias = tuple[torch.Tensor | None, torch.Tensor]
"""Places on the token axis (``None``: all), and what comes out of attention there."""

Find: TypeAlias = Callable[[nn.Module], "Touched | None"]

_find: ContextVar[Find | None] = ContextVar("inside", default=None)


@contextmanager
def touching(find: Find) -> Iterator[None]:
    """Inside the block ``find`` tells what is done inside an attention module."""
    token = _find.set(find)
    try:
        yield
    finally:
        _find.reset(token)


def touched_in(module: nn.Module) -> Touched | None:
    """What is done inside an attention module at this moment."""
    if is_watched():
        return _Noticing(module)
    find = _find.get()
    return None if find is None else find(module)


class _Noticing:
    """Nothing is done; who watches is told of it."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def touches(self, name: str) -> bool:
        return True

    def visit(self, name: str, value: torch.Tensor, seats: Seats | None = None) -> torch.Tensor:
        noticed(self._module, name, value)
        return value

    def visit_pattern(self, attended: Attended) -> Changed | None:
        noticed(self._module, "pattern", attended.weights())
        return None


class Repeated:
    """What was done the first time, where a block is computed again."""

    def __init__(self, path: str, handed_on: Mapping[str, Any]) -> None:
        self._path = path
        self._handed_on = handed_on

    def touches(self, name: str) -> bool:
        """See :class:`Touched`."""
        return f"{self._path}.{name}" in self._handed_on

    def visit(self, name: str, value: torch.Tensor, seats: Seats | None = None) -> torch.Tensor:
        """See :class:`Touched`."""
        found: torch.Tensor = self._handed_on.get(f"{self._path}.{name}", value)
        return found

    def visit_pattern(self, attended: Attended) -> Changed | None:
        """See :class:`Touched`."""
        return self._handed_on.get(f"{self._path}.pattern")


class SeenSeats:
    """Keys or values of a pack: those of its tokens without a past, then all that each lane with a past has seen."""

    def __init__(self, pack: Pack) -> None:
        lanes = pack.lanes
        self._pack = pack
        self.viewed = self.seen = lanes.past + lanes.length
        cached = pack.ordered[lanes.past[pack.ordered] > 0]
        self._begin = np.full(len(lanes.prompts), NOWHERE, np.int64)
        self._begin[cached] = pack.fresh + np.cumsum(self.seen[cached]) - self.seen[cached]

    def places(self, lanes: Numbers, positions: Numbers) -> Numbers:
        """See :class:`Seats`."""
        begin = self._begin[self._pack.present(lanes)]
        return np.where(begin == NOWHERE, self._pack.places(lanes, positions), begin + positions)


def lenders(pack: Pack, wanted: Numbers) -> Numbers:
    """The lanes of a pack that have the tokens of some lanes, ascending."""
    lanes = pack.lanes
    here = np.unique(pack.present(wanted))
    found = [here]
    while (here := np.unique(lanes.trunk[here[(lanes.start[here] > 0) & (lanes.trunk[here] != here)]])).size:
        found.append(here[pack.at[here] != NOWHERE])
    return np.unique(np.concatenate(found))
