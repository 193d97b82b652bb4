"""Lanes and packs against a plain model: a list of the tokens that are there, each a lane and a position."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.pack import NOWHERE, Group, Lanes, Pack

Token: TypeAlias = tuple[int, int]

CPU = torch.device("cpu")
MANY = settings(max_examples=150, deadline=None)


@dataclass
class Plain:
    """What lies on the axis: ``tokens`` in order, each with its place at the beginning; the lanes that are there."""

    lanes: Lanes
    present: list[int]
    tokens: list[Token]
    origin: list[int]

    @classmethod
    def of(cls, lanes: Lanes) -> Plain:
        whole = [lane for lane, trunk in enumerate(lanes.trunk.tolist()) if lane == trunk]
        ordered = sorted(whole, key=lambda lane: len(lanes.prompts[lane]))
        tokens = [(lane, position) for lane in ordered for position in range(len(lanes.prompts[lane]))]
        return cls(lanes, ordered, tokens, list(range(len(tokens))))

    def place(self, lane: int, position: int) -> int:
        """Where a token lies, or that of its trunk at the same position."""
        while lane not in self.present or position < self.lanes.start[lane]:
            trunk = int(self.lanes.trunk[lane])
            if trunk == lane:
                return NOWHERE
            lane = trunk
        return self.tokens.index((lane, position)) if (lane, position) in self.tokens else NOWHERE

    def with_tokens(self, present: list[int], tokens: list[Token]) -> tuple[Plain, list[int]]:
        index = [self.place(*token) for token in tokens]
        return Plain(self.lanes, present, tokens, [self.origin[place] for place in index]), index

    def with_lanes(self, present: list[int]) -> tuple[Plain, list[int]]:
        start, prompts = self.lanes.start.tolist(), self.lanes.prompts
        ordered = sorted(present, key=lambda lane: (len(prompts[lane]), start[lane]))
        own = [(lane, position) for lane in ordered for position in range(start[lane], len(prompts[lane]))]
        return self.with_tokens(ordered, own)

    def groups(self) -> tuple[Group, ...]:
        found, first, keys = [], 0, 0
        kinds = [(len(self.lanes.prompts[lane]), int(self.lanes.start[lane])) for lane in self.present]
        for (length, start), members in groupby(kinds):
            rows = len(list(members))
            found.append(Group(first, rows, length - start, length, keys if start else None))
            first += rows * (length - start)
            keys += rows * length if start else 0
        return tuple(found)

    def keys(self) -> list[int]:
        """Every token to which the lanes of groups with borrowed tokens attend."""
        return [self.place(*token) for lane in self.present if self.lanes.start[lane] for token in self.all_of(lane)]

    def lends(self, lane: int) -> bool:
        """Whether another lane that is there has a token of this one."""
        others = [other for other in self.present if other != lane]
        return any(self.tokens[self.place(*token)][0] == lane for other in others for token in self.all_of(other))

    def all_of(self, lane: int) -> list[Token]:
        return [(lane, position) for position in range(len(self.lanes.prompts[lane]))]


@st.composite
def some_lanes(draw: st.DrawFn) -> Lanes:
    """Up to four runs, with branches and branches of branches before, between and behind them."""
    runs = draw(st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=5), min_size=1, max_size=4))
    kinds = [(run, 0, number) for number, run in enumerate(range(len(runs)))]
    for number in range(len(runs), len(runs) + draw(st.integers(0, 6))):
        trunk = draw(st.integers(0, number - 1))
        run = kinds[trunk][0]
        kinds.append((run, draw(st.integers(0, len(runs[run]) - 1)), trunk))
    order = draw(st.permutations(range(len(kinds))))
    return Lanes.of(
        tuple(tuple(runs[kinds[kind][0]]) for kind in order),
        np.array([kinds[kind][1] for kind in order], np.int64),
        np.array([order.index(kinds[kind][2]) for kind in order], np.int64),
    )


def compare(pack: Pack, plain: Plain) -> None:
    assert pack.tokens == len(plain.tokens)
    everything = [(lane, position) for lane in range(len(pack.lanes.prompts)) for _, position in plain.all_of(lane)]
    there = [(token, place) for token in everything if (place := plain.place(*token)) != NOWHERE]
    which, positions = (np.array(numbers) for numbers in zip(*[token for token, _ in there], strict=True))
    assert pack.places(which, positions).tolist() == [place for _, place in there]


def compare_attention(pack: Pack, plain: Plain) -> None:
    assert pack.ordered.tolist() == plain.present
    assert pack.groups == plain.groups()
    assert (pack.keys(CPU).tolist() if pack.borrows else []) == plain.keys()
    lengths = pack.lengths(CPU)
    counts = [len(plain.all_of(lane)) for lane in plain.present]
    own = [count - int(pack.lanes.start[lane]) for lane, count in zip(plain.present, counts, strict=True)]
    assert lengths.queries_from.tolist() == np.cumsum([0, *own]).tolist()
    assert lengths.keys_from.tolist() == np.cumsum([0, *counts]).tolist()
    assert (lengths.longest_queries, lengths.longest) == (max(own), max(counts))
    if lengths.keys is None:
        assert own == counts
    else:
        wanted = [plain.place(*token) for lane in plain.present for token in plain.all_of(lane)]
        assert lengths.keys.tolist() == wanted


def moved(made: tuple[Pack, torch.Tensor], expected: tuple[Plain, list[int]]) -> tuple[Pack, Plain]:
    (pack, index), (plain, places) = made, expected
    assert index.tolist() == places
    assert pack.origin is not None
    assert pack.origin.tolist() == plain.origin
    compare(pack, plain)
    return pack, plain


def numbers(lanes: list[int]) -> Any:
    return np.array(sorted(lanes), np.int64)


@MANY
@given(lanes=some_lanes())
def test_a_pass_begins_with_the_tokens_of_every_run_that_is_no_branch(lanes: Lanes) -> None:
    pack, plain = Pack.of(lanes), Plain.of(lanes)
    compare(pack, plain)
    compare_attention(pack, plain)
    assert pack.origin is None
    prompts = [prompt for prompt in lanes.prompts if isinstance(prompt, tuple)]
    assert pack.token_ids(CPU).tolist() == [[prompts[lane][position] for lane, position in plain.tokens]]
    assert pack.position_ids(CPU).tolist() == [[position for _, position in plain.tokens]]


@MANY
@given(lanes=some_lanes(), data=st.data())
def test_branches_come_and_lanes_go_as_in_the_plain_model(lanes: Lanes, data: st.DataObject) -> None:
    pack, plain = Pack.of(lanes), Plain.of(lanes)
    unborn = {lane for lane in range(len(lanes.prompts)) if lanes.trunk[lane] != lane}
    for _ in range(data.draw(st.integers(1, 4), "steps")):
        possible = sorted(lane for lane in unborn if lanes.trunk[lane] in plain.present)
        born = set(data.draw(st.lists(st.sampled_from(possible), unique=True), "born")) if possible else set()
        unborn -= born
        present = sorted({*plain.present, *born})
        pack, plain = moved(pack.with_lanes(numbers(present), CPU), plain.with_lanes(present))
        compare_attention(pack, plain)
        free = sorted(lane for lane in present if not plain.lends(lane))
        gone = set(data.draw(st.lists(st.sampled_from(free), unique=True, max_size=len(present) - 1), "gone"))
        present = sorted(set(present) - gone)
        pack, plain = moved(pack.with_lanes(numbers(present), CPU), plain.with_lanes(present))
        compare_attention(pack, plain)
    kept = sorted(data.draw(st.lists(st.sampled_from(plain.tokens), unique=True, min_size=1), "kept"))
    places = np.array([lanes.first[lane] + position for lane, position in kept], np.int64)
    narrow, _ = moved(pack.with_positions(places, CPU), plain.with_tokens(plain.present, kept))
    assert narrow.groups == ()
    assert not narrow.borrows


def test_a_branch_that_comes_has_the_values_of_its_trunk_and_attends_to_its_first_tokens() -> None:
    lanes = Lanes.of(((5, 6, 7), (5, 6, 7), (8,)), np.array([0, 2, 0]), np.array([0, 0, 2]))
    pack, index = Pack.of(lanes).with_lanes(np.array([0, 1, 2]), CPU)
    assert index.tolist() == [0, 1, 2, 3, 3]
    which, positions = np.array([0, 0, 0, 1, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 2, 0])
    assert pack.places(which, positions).tolist() == [1, 2, 3, 1, 2, 4, 0]
    assert pack.groups == (Group(0, 1, 1, 1), Group(1, 1, 3, 3), Group(4, 1, 1, 3, 0))
    assert pack.borrows
    assert pack.keys(CPU).tolist() == [1, 2, 4]


def test_a_lane_that_has_gone_is_nowhere() -> None:
    pack, _ = Pack.of(Lanes.of([(1, 2), (3, 4)])).with_lanes(np.array([1]), CPU)
    assert pack.at.tolist() == [NOWHERE, 0]


@pytest.mark.parametrize("prompts", [[(1, 2, 3)], [(4,), (5, 6), (7, 8)]], ids=str)
def test_runs_side_by_side_are_their_own_trunks(prompts: list[tuple[int, ...]]) -> None:
    lanes = Lanes.of(prompts)
    assert lanes.trunk.tolist() == list(range(len(prompts)))
    assert lanes.start.tolist() == [0] * len(prompts)
    assert lanes.positions == sum(map(len, prompts))
