"""Where the tokens of many runs lie on one axis, and how that changes as a pass goes on.

A lane is a run's own tokens in a pass. A branch is a lane that owns its tokens only from a position on, and only from
a moment of the pass on; all other tokens of its run are those of its trunk, a lane of the same prompt, which may be a
branch itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch

from ndif_batch.engine.vectorised import uploaded

Numbers: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

NOWHERE = -1


@dataclass(frozen=True)
class Lanes:
    """The lanes of a pass. Lane ``i`` runs ``prompts[i]`` and owns the positions from ``start[i]`` on.

    ``trunk[i]`` is the lane that has the rest, or whose own trunk has; ``i`` itself for a lane that is no branch.
    Before its first position ``past[i]`` tokens lie in a cache. There its keys and values are kept from the slot
    ``region[i]`` on, those of its past first; ``NOWHERE`` if they are not kept.
    """

    prompts: tuple[tuple[int, ...], ...]
    start: Numbers
    trunk: Numbers
    past: Numbers
    region: Numbers

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], start: Numbers | None = None, trunk: Numbers | None = None) -> Lanes:
        """Runs side by side without a past, none of them a branch unless ``start`` and ``trunk`` say so."""
        whole = tuple(tuple(prompt) for prompt in prompts)
        none = np.zeros(len(whole), np.int64)
        start = none if start is None else start
        trunk = np.arange(len(whole)) if trunk is None else trunk
        return cls(whole, start, trunk, none, np.full(len(whole), NOWHERE))

    @cached_property
    def length(self) -> Numbers:
        """Tokens of each lane's run."""
        return np.array([len(prompt) for prompt in self.prompts], np.int64)

    @cached_property
    def first(self) -> Numbers:
        """Where each lane's positions begin when all positions of all lanes are numbered."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int64)

    @cached_property
    def depth(self) -> int:
        """How many lanes are between the deepest branch and a lane that is none: 1 if no branch has branches."""
        above, depth = self.trunk, 0
        while (above[above] != above).any():
            above, depth = above[above], depth + 1
        return depth + 1

    @property
    def positions(self) -> int:
        """How many positions all lanes have together."""
        return int(self.length.sum())

    def pieces(self, owners: Numbers, begin: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """The positions of some lanes' runs from ``begin`` on, piece by piece in order: each has one owner.

        Lanes of the pieces, their first positions and how many these are, ``[lanes, pieces]``; some have none.
        """
        found = []
        end = self.length[owners]
        while True:
            first = np.minimum(np.maximum(self.start[owners], begin), end)
            found.append((owners, first, end - first))
            if not (first > begin).any():
                break
            owners, end = self.trunk[owners], first
        lanes, firsts, counts = (np.stack(part[::-1], axis=1) for part in zip(*found, strict=True))
        return lanes, firsts, counts


@dataclass(frozen=True, slots=True)
class Group:
    """``rows`` lanes that own their last ``queries`` tokens, one behind the other from ``first``, and attend to
    ``length`` tokens.

    ``keys`` is where their rows begin among the pack's ``keys``; ``None`` if they own all that they attend to. Those
    of lanes with a past are ``cached``: their rows are among the pack's ``slots``.
    """

    first: int
    rows: int
    queries: int
    length: int
    keys: int | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Lengths:
    """A pack lane by lane: where its queries and its keys begin (``[lanes + 1]``, int32), and the longest of both.

    ``keys`` are the places of the keys, or their slots in a cache; ``None`` if the pack is just these.
    """

    queries_from: torch.Tensor
    keys_from: torch.Tensor
    longest_queries: int
    longest: int
    keys: torch.Tensor | None


@dataclass(frozen=True)
class Pack:
    """The tokens of a pass at one moment.

    ``at`` says where the tokens that a lane owns begin on the token axis, or ``NOWHERE``; where a pass is narrow,
    ``kept`` are the positions that are there, numbered over all lanes. ``origin`` has for each place its place at the
    beginning of the pass, on the device; ``None`` at the beginning. ``ordered`` are the lanes in the order of their
    tokens. The model has the token axis in ``rows`` equal parts, as rows of a batch.
    """

    lanes: Lanes
    at: Numbers
    tokens: int
    groups: tuple[Group, ...]
    ordered: Numbers
    origin: torch.Tensor | None = None
    kept: Numbers | None = None
    rows: int = 1
    _lengths: dict[tuple[torch.device, bool], Lengths] = field(default_factory=dict)
    _lanes: dict[torch.device, torch.Tensor] = field(default_factory=dict)
    _keys: dict[torch.device, torch.Tensor] = field(default_factory=dict)
    _slots: dict[torch.device, torch.Tensor] = field(default_factory=dict)
    _kept_at: dict[torch.device, tuple[torch.Tensor | None, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, lanes: Lanes, *, in_rows: bool = False) -> Pack:
        """The beginning of a pass: every lane that is no branch, the shorter ones first.

        ``in_rows`` makes each a row of a batch; then all are of one length.
        """
        whole = np.flatnonzero(lanes.trunk == np.arange(len(lanes.prompts)))
        whole = whole[np.lexsort((lanes.length[whole], lanes.past[whole]))]
        at, tokens = _laid(lanes, whole)
        return cls(lanes, at, tokens, _groups(lanes, whole), whole, rows=whole.size if in_rows else 1)

    def token_ids(self, device: torch.device) -> torch.Tensor:
        """``[rows, tokens of a row]``; of the beginning of a pass."""
        prompts = (self.lanes.prompts[lane] for lane in self.ordered.tolist())
        flat = np.fromiter((token for prompt in prompts for token in prompt), np.int64)
        return uploaded(flat, device).reshape(self.rows, -1)

    def position_ids(self, device: torch.device) -> torch.Tensor:
        """``[rows, tokens of a row]``; of the beginning of a pass."""
        return self.positions(device).reshape(self.rows, -1)

    def positions(self, device: torch.device) -> torch.Tensor:
        """Where each token stands in its run, ``[tokens]``; of a pack of lanes."""
        return _ranges((self.lanes.past + self.lanes.start)[self.ordered], self._counts, device)

    def run_lengths(self) -> Numbers:
        """How long each token's run is, ``[tokens]``; of a pack of lanes."""
        return np.repeat((self.lanes.past + self.lanes.length)[self.ordered], self._counts)

    @property
    def borrows(self) -> bool:
        """Whether a lane borrows tokens; of a pack of lanes."""
        return any(group.keys is not None and not group.cached for group in self.groups)

    @property
    def _counts(self) -> Numbers:
        return self.lanes.length[self.ordered] - self.lanes.start[self.ordered]

    def owners(self, device: torch.device) -> torch.Tensor:
        """The lane of each token, ``[tokens]``; of a pack of lanes."""
        if device not in self._lanes:
            self._lanes[device] = _repeated(self.ordered, self._counts, device)
        return self._lanes[device]

    def keys(self, device: torch.device) -> torch.Tensor:
        """The places that the lanes of groups with borrowed tokens attend to, row by row."""
        if device not in self._keys:
            self._keys[device] = self._runs(self.ordered[self.lanes.start[self.ordered] > 0], device)
        return self._keys[device]

    @property
    def fresh(self) -> int:
        """How many tokens are of lanes without a past: these come first."""
        return int(self._counts[self.lanes.past[self.ordered] == 0].sum())

    @property
    def is_kept(self) -> bool:
        """Whether keys and values of a lane that is there belong into a cache; of a pack of lanes."""
        return bool(self._kept.size)

    @property
    def _kept(self) -> Numbers:
        """The lanes with a region: those that are there, and branches to come whose trunk has their tokens."""
        kept = np.flatnonzero(self.lanes.region != NOWHERE)
        return kept[self.at[self.present(kept)] != NOWHERE] if kept.size else kept

    @property
    def viewed(self) -> Numbers:
        """Tokens of each lane's run in this pass."""
        return self.lanes.length

    @property
    def seen(self) -> Numbers:
        """Tokens of each lane's run, those of its past included."""
        return self.lanes.past + self.lanes.length

    def present(self, lanes: Numbers) -> Numbers:
        """For each lane itself, or the trunk that has its tokens as long as it is not there."""
        return self._upwards(lanes, lambda lane: self.at[lane] == NOWHERE)

    def slots(self, device: torch.device) -> torch.Tensor:
        """The slots that lanes with a past attend to, row by row."""
        if device not in self._slots:
            cached = self.ordered[self.lanes.past[self.ordered] > 0]
            counts = (self.lanes.past + self.lanes.length)[cached]
            self._slots[device] = _ranges(self.lanes.region[cached], counts, device)
        return self._slots[device]

    def kept_at(self, device: torch.device) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Places of the tokens whose keys and values are kept (``None``: all, in order), and the slot of each."""
        if device not in self._kept_at:
            kept = self._kept
            there = self.present(kept)
            places = self._places_of(*self.lanes.pieces(there, np.zeros_like(kept)), device)
            slots = _ranges((self.lanes.region + self.lanes.past)[kept], self.lanes.length[kept], device)
            self._kept_at[device] = places, slots
        return self._kept_at[device]

    def lengths(self, device: torch.device, *, cached: bool = False) -> Lengths:
        """The lanes without a past, or those that have one, as kernels for runs of any length have them."""
        if (device, cached) not in self._lengths:
            self._lengths[device, cached] = self._measured(device, cached)
        return self._lengths[device, cached]

    def _measured(self, device: torch.device, cached: bool) -> Lengths:
        own = self.ordered[(self.lanes.past[self.ordered] > 0) == cached]
        queries = (self.lanes.length - self.lanes.start)[own]
        keys = (self.lanes.past + self.lanes.length)[own]
        ends = np.concatenate([[0], np.cumsum(queries), [0], np.cumsum(keys)])
        both = uploaded(ends, device).int()
        return Lengths(
            queries_from=both[: len(queries) + 1],
            keys_from=both[len(queries) + 1 :],
            longest_queries=int(queries.max()),
            longest=int(keys.max()),
            keys=self.slots(device) if cached else self._runs(own, device) if self.borrows else None,
        )

    def _runs(self, lanes: Numbers, device: torch.device) -> torch.Tensor:
        """The places of all positions of some lanes, lane by lane."""
        return self._places_of(*self.lanes.pieces(lanes, np.zeros_like(lanes)), device)

    def _places_of(self, owners: Numbers, first: Numbers, counts: Numbers, device: torch.device) -> torch.Tensor:
        begin = self.at[owners] + first - self.lanes.start[owners]
        return _ranges(begin.ravel(), counts.ravel(), device)

    def places(self, lanes: Numbers, positions: Numbers) -> Numbers:
        """Where positions of lanes lie on the axis; those of a branch that is not there: where its trunk has them."""
        owners = self._upwards(lanes, lambda lane: (positions < self.lanes.start[lane]) | (self.at[lane] == NOWHERE))
        if self.kept is not None:
            return np.searchsorted(self.kept, self.lanes.first[owners] + positions)
        return self.at[owners] + positions - self.lanes.start[owners]

    def with_lanes(self, present: Numbers, device: torch.device) -> tuple[Pack, torch.Tensor]:
        """The pack of some lanes, and for each of its tokens the place from which it comes.

        A branch that was not there yet takes its first tokens from its trunk.
        """
        lanes = self.lanes
        ordered = present[np.lexsort((lanes.start[present], lanes.length[present], lanes.past[present]))]
        at, tokens = _laid(lanes, ordered)
        there = self.present(ordered)
        index = self._places_of(*lanes.pieces(there, lanes.start[ordered]), device)
        return Pack(lanes, at, tokens, _groups(lanes, ordered), ordered, self._origin(index)), index

    def with_positions(self, kept: Numbers, device: torch.device) -> tuple[Pack, torch.Tensor]:
        """The pack of some positions (ascending), numbered over all lanes: there is no attention over it."""
        lanes = np.searchsorted(self.lanes.first, kept, side="right") - 1
        index = uploaded(self.places(lanes, kept - self.lanes.first[lanes]), device)
        none = kept[:0]
        return Pack(self.lanes, self.at, kept.size, (), none, self._origin(index), kept), index

    def _upwards(self, lanes: Numbers, further: Callable[[Numbers], Any]) -> Numbers:
        """From each lane to its trunk, as long as that is ``further``."""
        trunk = self.lanes.trunk
        while (onwards := further(lanes) & (trunk[lanes] != lanes)).any():
            lanes = np.where(onwards, trunk[lanes], lanes)
        return lanes

    def _origin(self, index: torch.Tensor) -> torch.Tensor:
        return index if self.origin is None else self.origin.to(index.device)[index]


def _laid(lanes: Lanes, ordered: Numbers) -> tuple[Numbers, int]:
    """Where the tokens of each lane begin if those of some lie one behind the other, and how many these are."""
    at = np.full(len(lanes.prompts), NOWHERE, np.int64)
    ends = np.cumsum(lanes.length[ordered] - lanes.start[ordered])
    at[ordered] = np.concatenate([[0], ends[:-1]])
    return at, int(ends[-1])


def _groups(lanes: Lanes, ordered: Numbers) -> tuple[Group, ...]:
    groups = []
    first = begun = slots = 0
    lengths, starts, pasts = lanes.length[ordered], lanes.start[ordered], lanes.past[ordered]
    ends = np.flatnonzero((np.diff(lengths) != 0) | (np.diff(starts) != 0) | (np.diff(pasts) != 0)) + 1
    for begin, end in pairwise([0, *ends.tolist(), ordered.size]):
        rows, length, start, past = end - begin, int(lengths[begin]), int(starts[begin]), int(pasts[begin])
        if past:
            group = Group(first, rows, length - start, past + length, slots, cached=True)
            slots += rows * group.length
        else:
            group = Group(first, rows, length - start, length, begun if start else None)
            begun += rows * length if start else 0
        first += rows * group.queries
        groups.append(group)
    return tuple(groups)


def _ranges(begin: Numbers, counts: Numbers, device: torch.device) -> torch.Tensor:
    """So many numbers from each beginning on, one range behind the other."""
    before = np.cumsum(counts) - counts
    return _repeated(begin - before, counts, device) + torch.arange(int(counts.sum()), device=device)


def _repeated(numbers: Numbers, counts: Numbers, device: torch.device) -> torch.Tensor:
    """Each number so many times."""
    both = uploaded(np.stack([numbers, counts]), device)
    return torch.repeat_interleave(both[0], both[1], output_size=int(counts.sum()))
