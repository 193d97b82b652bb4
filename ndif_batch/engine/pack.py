"""The packed layout: the tokens of many runs on one axis, and which run owns which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """The ``length`` tokens of one run from ``first`` on."""

    first: int
    length: int


@dataclass(frozen=True, slots=True)
class Group:
    """``rows`` segments of equal ``length``, one behind the other from ``first`` on: a block without padding."""

    first: int
    rows: int
    length: int


@dataclass(frozen=True)
class Pack:
    """Runs side by side on one token axis, the shorter ones first.

    ``segments`` are in the order in which the runs were given; ``token_ids`` and ``positions`` are ``[1, tokens]``.
    """

    segments: tuple[Segment, ...]
    groups: tuple[Group, ...]
    token_ids: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of(cls, runs: Sequence[Sequence[int]], device: torch.device) -> Pack:
        """Packs the token ids of ``runs``."""
        order = sorted(range(len(runs)), key=lambda i: len(runs[i]))
        firsts = [0] * len(runs)
        ids: list[int] = []
        positions: list[int] = []
        groups = []
        for length, members in groupby(order, key=lambda i: len(runs[i])):
            start = len(ids)
            for i in members:
                firsts[i] = len(ids)
                ids.extend(runs[i])
                positions.extend(range(length))
            groups.append(Group(start, (len(ids) - start) // length, length))
        return cls(
            segments=tuple(Segment(first, len(run)) for first, run in zip(firsts, runs, strict=True)),
            groups=tuple(groups),
            token_ids=torch.tensor([ids], device=device),
            positions=torch.tensor([positions], device=device),
        )

    @property
    def tokens(self) -> int:
        """Length of the token axis."""
        return self.token_ids.shape[1]


@dataclass(frozen=True)
class Kept:
    """The positions of each segment that go through the last module of a pass; the other tokens end before it."""

    positions: tuple[tuple[int, ...], ...]
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, positions: Sequence[Sequence[int]]) -> Kept:
        """Keeps ``positions[i]`` (ascending) of segment ``i``."""
        segments = []
        first = 0
        for kept in positions:
            segments.append(Segment(first, len(kept)))
            first += len(kept)
        return cls(tuple(tuple(kept) for kept in positions), tuple(segments))

    def index(self, pack: Pack) -> torch.Tensor:
        """Where the kept tokens are on the pack's token axis."""
        places = [
            segment.first + position
            for segment, kept in zip(pack.segments, self.positions, strict=True)
            for position in kept
        ]
        return torch.tensor(places, device=pack.token_ids.device, dtype=torch.long)

    @cached_property
    def places(self) -> tuple[dict[int, int], ...]:
        """For each segment, where a position is among those kept."""
        return tuple({position: i for i, position in enumerate(kept)} for kept in self.positions)
