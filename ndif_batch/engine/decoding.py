"""Attention of single tokens to what their runs have seen, whatever its length: many runs in one call.

Runs of about equal length are rows that are filled up to the longest, at most to twice their own length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import scaled_dot_product_attention

from ndif_batch.engine.vectorised import uploaded

EMPTY = 0
"""The slot of a cache that holds zeros: behind the end of a row nothing is multiplied by 0 but these."""

Explicit: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Attention of queries, keys and values ``[rows, heads, tokens, width]`` with a mask of what may be attended to."""


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """``count`` runs whose tokens are those from ``first`` on, one each.

    ``lengths`` are how many tokens each attends to, ``[rows, 1]``: ``longest`` at most, or all of them if ``equal``.
    ``slots`` are where these lie in a cache, ``[rows * longest]``.
    """

    first: int
    count: int
    longest: int
    equal: bool
    lengths: torch.Tensor
    slots: torch.Tensor


class Masks(Protocol):
    """Says what rows may attend to."""

    def of_rows(self, rows: Rows, device: torch.device) -> torch.Tensor | None:
        """A mask ``[rows, 1, 1, longest]``; ``None`` if all may be attended to."""


def in_rows(first: int, begin: NDArray[np.int64], lengths: NDArray[np.int64], device: torch.device) -> list[Rows]:
    """Runs in ascending order of their ``lengths``, the tokens of which begin at slots ``begin``."""
    ascending = lengths.tolist()
    cuts = [len(ascending)]
    while cuts[-1]:
        cut = cuts[-1] - 1
        while cut and 2 * ascending[cut - 1] >= ascending[cuts[-1] - 1]:
            cut -= 1
        cuts.append(cut)
    both = uploaded(np.stack([begin, lengths]), device)
    return [_rows(first, both, ascending, cut, end) for cut, end in pairwise(reversed(cuts))]


def _rows(first: int, both: torch.Tensor, lengths: Sequence[int], cut: int, end: int) -> Rows:
    begin, own = both[:, cut:end, None]
    place = torch.arange(lengths[end - 1], device=both.device)
    slots = torch.where(place < own, begin + place, EMPTY)
    return Rows(first + cut, end - cut, lengths[end - 1], lengths[cut] == lengths[end - 1], own, slots.flatten())


def attend(
    rows: Rows,
    query: torch.Tensor,
    held: tuple[torch.Tensor, torch.Tensor],
    masks: Masks,
    scale: float,
    explicit: Explicit | None = None,
) -> torch.Tensor:
    """What comes out for rows among the tokens of ``query`` ``[1, heads, tokens, width]``: ``[1, rows, heads, width]``.

    ``held`` are keys and values in a cache, ``[heads, slots, width]``. Heads of queries that have one head of keys in
    common are to torch so many queries of one head. ``explicit`` is for what torch has no kernel for.
    """
    own = query[0, :, rows.first : rows.first + rows.count].transpose(0, 1)
    key, value = (
        store.index_select(1, rows.slots).view(store.shape[0], rows.count, rows.longest, -1).transpose(0, 1)
        for store in held
    )
    mask = masks.of_rows(rows, query.device)
    if explicit is not None:
        return explicit(own[:, :, None], key, value, mask)[None, :, :, 0]
    shared = own.reshape(rows.count, key.shape[1], -1, own.shape[2])
    part = scaled_dot_product_attention(shared, key, value, attn_mask=mask, scale=scale)
    return part.reshape(1, rows.count, own.shape[1], -1)
