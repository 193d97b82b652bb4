"""The blocks that a model runs one after another, and which of their arguments have something for every token."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from ndif_batch.graph.sites import Site, SiteMap, SiteTensor

TokenAxes: TypeAlias = "int | tuple[TokenAxes, ...] | dict[str, TokenAxes] | None"
"""For a tensor its tokens' axis, ``None`` if it has none or is no tensor; for a tuple or a dict that of each item."""


FROM_THE_BEGINNING = -1


@dataclass(frozen=True)
class Moments:
    """Where a pass can take in branches and let lanes go: orders of sites.

    ``births[k]`` comes before block ``k`` (the last one after all blocks); ``narrow`` is the order from which on only
    the positions that somebody needs are computed, ``None`` if all are. ``tails[k]`` is the order after which block
    ``k`` computes of lanes that end in it only the positions that somebody needs there; empty if blocks are whole.
    """

    births: tuple[int, ...] = ()
    narrow: int | None = None
    causal: bool = True
    tails: tuple[int, ...] = ()

    def birth(self, order: int) -> int:
        """At which birth a run has to be apart that is changed at a site; before the first: from the beginning."""
        return bisect_right(self.births, order) - 1

    def ends_in(self, order: int) -> int:
        """The block in which a lane ends that is needed up to a site: the last one for what comes after all blocks."""
        return min(bisect_left(self.births, order), len(self.births) - 1) - 1

    def through(self, order: int) -> int:
        """Through how many blocks a run goes up to a site; a model without blocks counts as one."""
        return min(bisect_right(self.births, order), len(self.births) - 1) if self.births else 1


@dataclass(frozen=True, slots=True)
class Block:
    """A module through which all tokens go. ``rest`` and ``named`` are its arguments beside the hidden states.

    Its ``tail`` are the modules in it that come after attention and compute each token by itself.
    """

    path: str
    rest: TokenAxes
    named: TokenAxes
    tail: tuple[Block, ...] = ()


def find_blocks(sites: SiteMap) -> tuple[str, ...]:
    """Paths of the modules of the longest list that is gone through in order, one hidden state to the next.

    A list is a module of numbered ones that is never called itself.
    """
    found = [
        paths
        for owner, paths in _children(sites).items()
        if f"{owner}.output" not in sites.sites
        and paths == tuple(f"{owner}.{number}" for number in range(len(paths)))
        and _in_order(paths, sites)
    ]
    return max(found, key=lambda paths: _span(paths, sites), default=())


def births_of(blocks: Sequence[str], sites: SiteMap) -> tuple[int, ...]:
    """Before which sites branches can begin: before the first block, and after each."""
    return sites.site(f"{blocks[0]}.input").order, *(sites.site(f"{path}.output").order for path in blocks)


def last_before_head(blocks: Sequence[str], sites: SiteMap) -> str | None:
    """The module after all blocks whose output is what the head takes in, as far as the order shows it."""
    head = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
    if head is None or not blocks:
        return None
    after = sites.site(f"{blocks[-1]}.output").order
    between = [
        site
        for site in sites.sites.values()
        if after < site.order < head.order and site.path.endswith(".output") and site.refused is None
    ]
    return max(between, key=lambda site: site.order).path.rpartition(".")[0] if between else None


def token_axes(short: Any, long: Any, lengths: tuple[int, int]) -> TokenAxes:
    """Which axes of the same value in two passes of different ``lengths`` follow the number of tokens.

    ``ValueError`` if an axis changes in another way, or two follow.
    """
    if isinstance(short, torch.Tensor) and isinstance(long, torch.Tensor):
        return _axis(short, long, lengths)
    if isinstance(short, dict) and isinstance(long, dict):
        return {key: token_axes(short[key], long[key], lengths) for key in short}
    if isinstance(short, tuple | list) and isinstance(long, tuple | list):
        return tuple(token_axes(a, b, lengths) for a, b in zip(short, long, strict=True))
    return None


def _axis(short: torch.Tensor, long: torch.Tensor, lengths: tuple[int, int]) -> int | None:
    if short.ndim != long.ndim:
        raise ValueError("an argument of a block has another number of axes for another prompt")
    changed = [(i, pair) for i, pair in enumerate(zip(short.shape, long.shape, strict=True)) if pair[0] != pair[1]]
    if len(changed) > 1 or any(pair != lengths for _, pair in changed):
        raise ValueError("an argument of a block depends on the number of tokens in more than one axis")
    return changed[0][0] if changed else None


def along_tokens(value: Any, axes: TokenAxes, change: Callable[[torch.Tensor, int], torch.Tensor]) -> Any:
    """``value`` with ``change`` applied to every tensor in it that has something for every token."""
    if isinstance(axes, int):
        return change(value, axes)
    if isinstance(axes, dict):
        return {key: along_tokens(item, axes.get(key), change) for key, item in value.items()}
    if isinstance(axes, tuple) and len(axes) == len(value):
        return type(value)(along_tokens(item, axis, change) for item, axis in zip(value, axes, strict=True))
    return value


def _children(sites: SiteMap) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for path in sites.modules:
        owner = path.rpartition(".")[0]
        found[owner] = (*found.get(owner, ()), path)
    return found


def _in_order(paths: tuple[str, ...], sites: SiteMap) -> bool:
    orders: list[int] = []
    for path in paths:
        ends = [sites.sites.get(f"{path}.{leaf}") for leaf in ("input", "output")]
        if not all(end is not None and end.refused is None and _is_hidden(end) for end in ends):
            return False
        orders += [end.order for end in ends if end is not None]
    return orders == sorted(orders)


def _is_hidden(site: Site) -> bool:
    value = site.value[0] if isinstance(site.value, tuple) and site.value else site.value
    return isinstance(value, SiteTensor) and len(value.shape) == 3 and value.token_axes in ((0,), (1,))


def _span(paths: tuple[str, ...], sites: SiteMap) -> int:
    return sites.site(f"{paths[-1]}.output").order - sites.site(f"{paths[0]}.input").order
