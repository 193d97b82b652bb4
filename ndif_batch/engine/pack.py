"""Where the tokens of many runs lie on one axis, and how that changes as a pass goes on.

A lane is a run's own tokens in a pass. A branch is a lane that owns its tokens only from a position on, and only from
a moment of the pass on; all other tokens of its run are those of its trunk, a lane of the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch

from ndif_batch.engine.vectorised import uploaded

Numbers: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

NOWHERE = -1
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Lanes:
    """The lanes of a pass. Lane ``i`` runs ``prompts[i]`` and owns the positions from ``start[i]`` on.

    ``trunk[i]`` is the lane that has the rest, ``i`` itself for a lane that is no branch.
    """

    prompts: tuple[tuple[int, ...], ...]
    start: Numbers
    trunk: Numbers
    _trunks: dict[torch.device, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]]) -> Lanes:
        """Runs side by side, none of them a branch."""
        whole = tuple(tuple(prompt) for prompt in prompts)
        return cls(whole, np.zeros(len(whole), np.int64), np.arange(len(whole)))

    @cached_property
    def length(self) -> Numbers:
        """Tokens of each lane's run."""
        return np.array([len(prompt) for prompt in self.prompts], np.int64)

    @cached_property
    def first(self) -> Numbers:
        """Where each lane's positions begin when all positions of all lanes are numbered."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int64)

    @cached_property
    def borrowed(self) -> Numbers:
        """For each position of each lane the same position of its trunk."""
        shift = np.repeat(self.first[self.trunk] - self.first, self.length)
        return shift + np.arange(shift.size)

    def own(self, lanes: Numbers, device: torch.device) -> torch.Tensor:
        """The positions that some lanes own, lane by lane."""
        return _ranges(self.first[lanes] + self.start[lanes], self.length[lanes] - self.start[lanes], device)

    def all(self, lanes: Numbers, device: torch.device) -> torch.Tensor:
        """All positions of some lanes, lane by lane."""
        return _ranges(self.first[lanes], self.length[lanes], device)

    def trunks(self, device: torch.device) -> torch.Tensor:
        """``borrowed`` on a device."""
        if device not in self._trunks:
            self._trunks[device] = uploaded(self.borrowed, device)
        return self._trunks[device]


@dataclass(frozen=True, slots=True)
class Group:
    """``rows`` lanes of equal ``length`` that own their last ``queries`` tokens, one behind the other from ``first``.

    ``keys`` is where their rows begin among the pack's ``keys``; ``None`` if they own all that they attend to.
    """

    first: int
    rows: int
    queries: int
    length: int
    keys: int | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """A pack lane by lane: where its queries and its keys begin (``[lanes + 1]``, int32), and the longest of both.

    ``keys`` are the places of the keys, ``None`` if the pack is just these.
    """

    queries_from: torch.Tensor
    keys_from: torch.Tensor
    longest_queries: int
    longest: int
    keys: torch.Tensor | None


@dataclass(frozen=True)
class Pack:
    """The tokens of a pass at one moment. What there is for each token is on the device, where it is computed, too.

    ``seats`` has, for each position of each lane, the place on the token axis (or ``NOWHERE``); ``origin`` for each
    place its place at the beginning of the pass, ``None`` at the beginning. ``keys`` are the places that the lanes of
    groups with borrowed tokens attend to, row by row; ``ordered`` are the lanes in the order of their tokens. The
    model has the token axis in ``rows`` equal parts, as rows of a batch.
    """

    lanes: Lanes
    seats: torch.Tensor
    tokens: int
    groups: tuple[Group, ...]
    ordered: Numbers
    origin: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    rows: int = 1
    _lengths: dict[torch.device, Lengths] = field(default_factory=dict)
    _lanes: dict[torch.device, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, lanes: Lanes, *, in_rows: bool = False) -> Pack:
        """The beginning of a pass: every lane that is no branch, the shorter ones first.

        ``in_rows`` makes each a row of a batch; then all are of one length.
        """
        whole = np.flatnonzero(lanes.trunk == np.arange(len(lanes.prompts)))
        whole = whole[np.argsort(lanes.length[whole], kind="stable")]
        own = lanes.own(whole, CPU)
        rows = whole.size if in_rows else 1
        return cls(lanes, _seated(lanes, own), own.numel(), _groups(lanes, whole), whole, rows=rows)

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
        return _ranges(self.lanes.start[self.ordered], self._counts, device)

    def run_lengths(self) -> Numbers:
        """How long each token's run is, ``[tokens]``; of a pack of lanes."""
        return np.repeat(self.lanes.length[self.ordered], self._counts)

    @property
    def _counts(self) -> Numbers:
        return self.lanes.length[self.ordered] - self.lanes.start[self.ordered]

    def owners(self, device: torch.device) -> torch.Tensor:
        """The lane of each token, ``[tokens]``; of a pack of lanes."""
        if device not in self._lanes:
            self._lanes[device] = _repeated(self.ordered, self._counts, device)
        return self._lanes[device]

    def lengths(self, device: torch.device) -> Lengths:
        """The pack as kernels for runs of any length have it."""
        if device not in self._lengths:
            self._lengths[device] = self._measured(device)
        return self._lengths[device]

    def _measured(self, device: torch.device) -> Lengths:
        rows = [group.rows for group in self.groups]
        queries = np.repeat([group.queries for group in self.groups], rows)
        keys = np.repeat([group.length for group in self.groups], rows)
        ends = np.concatenate([[0], np.cumsum(queries), [0], np.cumsum(keys)])
        both = uploaded(ends, device).int()
        return Lengths(
            queries_from=both[: len(queries) + 1],
            keys_from=both[len(queries) + 1 :],
            longest_queries=int(queries.max()),
            longest=int(keys.max()),
            keys=None if self.keys is None else self._all_keys().to(device),
        )

    def _all_keys(self) -> torch.Tensor:
        return self.seats[self.lanes.all(self.ordered, self.seats.device)]

    def places(self, lanes: Numbers, positions: Numbers) -> torch.Tensor:
        """Where positions of lanes lie on the token axis."""
        return self.seats[uploaded(self.lanes.first[lanes] + positions, self.seats.device)]

    def with_lanes(self, present: Numbers, device: torch.device) -> tuple[Pack, torch.Tensor]:
        """The pack of some lanes, and for each of its tokens the place from which it comes.

        A branch that was not there yet takes its first tokens from its trunk.
        """
        lanes = self.lanes
        ordered = present[np.lexsort((lanes.start[present], lanes.length[present]))]
        borrowing = ordered[lanes.start[ordered] > 0]
        keys = lanes.all(borrowing, device) if borrowing.size else None
        return self._rearranged(lanes.own(ordered, device), _groups(lanes, ordered), ordered, keys)

    def with_positions(self, kept: Numbers, device: torch.device) -> tuple[Pack, torch.Tensor]:
        """The pack of some positions, numbered over all lanes: there is no attention over it."""
        return self._rearranged(uploaded(kept, device), (), kept[:0], None)

    def _rearranged(
        self, own: torch.Tensor, groups: tuple[Group, ...], ordered: Numbers, keys: torch.Tensor | None
    ) -> tuple[Pack, torch.Tensor]:
        seats = _seated(self.lanes, own)
        index = uploaded(self.seats, own.device)[own]
        origin = index if self.origin is None else self.origin[index]
        borrowed = None if keys is None else seats[keys]
        return Pack(self.lanes, seats, own.numel(), groups, ordered, origin, borrowed), index


def _seated(lanes: Lanes, own: torch.Tensor) -> torch.Tensor:
    seats = torch.full((lanes.borrowed.size,), NOWHERE, device=own.device)
    seats[own] = torch.arange(own.numel(), device=own.device)
    return torch.where(seats == NOWHERE, seats[lanes.trunks(own.device)], seats)


def _groups(lanes: Lanes, ordered: Numbers) -> tuple[Group, ...]:
    groups = []
    first = begun = 0
    lengths, starts = lanes.length[ordered], lanes.start[ordered]
    ends = np.flatnonzero((np.diff(lengths) != 0) | (np.diff(starts) != 0)) + 1
    for begin, end in pairwise([0, *ends.tolist(), ordered.size]):
        rows, length, start = end - begin, int(lengths[begin]), int(starts[begin])
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
