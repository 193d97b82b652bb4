"""Packed attention: every run as if it were alone, and no keyword swallowed whose meaning is not known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from ndif_batch.engine import varlen
from ndif_batch.engine.attention import Pattern, attending, packed_attention
from ndif_batch.engine.decoding import attend
from ndif_batch.engine.pack import Lanes, Numbers, Pack

CPU = torch.device("cpu")
RUNS = [(1, 2, 3, 4, 5), (1, 2), (3, 4, 5, 6, 7), (9,)]
PACK = Pack.of(Lanes.of(RUNS))
MODULE = nn.Module()


def causal(_: object, __: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return key <= query


def window(_: object, __: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return (key <= query) & (key > query - 2)


def everything(_: object, __: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return (key >= 0).expand(query.shape[0], -1)


def projections() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(1, heads, PACK.tokens, 8) for heads in (4, 2, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("function", [causal, window, everything])
def test_each_run_attends_as_if_it_were_alone(function: object) -> None:
    query, key, value = projections()
    with attending(lambda: PACK):
        packed, _ = packed_attention(MODULE, query, key, value, Pattern(function, CPU), scaling=0.3)  # type: ignore[arg-type]
    for lane in range(len(RUNS)):
        own = places_of(lane)
        q, k, v = (tensor[:, :, own] for tensor in (query, key, value))
        places = torch.arange(len(own))
        mask = function(0, 0, places[:, None], places[None])  # type: ignore[operator]
        alone = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(packed[:, own], alone.transpose(1, 2))


@pytest.mark.parametrize("function", [causal, window])
@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"s_aux": torch.tensor([0.5, -1.0, 2.0, 0.0])}], ids=str)
def test_a_branch_attends_to_its_trunk_as_if_it_had_all_tokens_itself(
    function: object, options: dict[str, object]
) -> None:
    lanes = Lanes.of(((1, 2, 3, 4, 5),) * 4, np.array([0, 2, 4, 2]), np.array([0, 0, 0, 0]))
    pack, _ = Pack.of(lanes).with_lanes(np.arange(4), CPU)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, pack.tokens, 8) for heads in (4, 2, 2))
    pattern = Pattern(function, CPU)  # type: ignore[arg-type]
    with attending(lambda: pack):
        packed, _ = packed_attention(MODULE, query, key, value, pattern, **options)  # type: ignore[arg-type]
    for lane in range(4):
        seats = pack.places(np.full(5, lane), np.arange(5))
        whole = Pack.of(Lanes.of([lanes.prompts[0]]))
        with attending(lambda whole=whole: whole):  # type: ignore[misc]
            alone, _ = packed_attention(
                MODULE,
                query[:, :, seats],
                key[:, :, seats],
                value[:, :, seats],
                Pattern(function, CPU),  # type: ignore[arg-type]
                **options,  # type: ignore[arg-type]
            )
        start = int(lanes.start[lane])
        torch.testing.assert_close(packed[:, seats[start:]], alone[:, start:])


def places_of(lane: int) -> Numbers:
    length = len(RUNS[lane])
    return PACK.places(np.full(length, lane), np.arange(length))


def test_a_run_of_nan_does_not_reach_its_neighbours() -> None:
    query, key, value = projections()
    bad, well = places_of(0), places_of(2)
    key[:, :, bad] = float("nan")
    value[:, :, bad] = float("inf")
    with attending(lambda: PACK):
        packed, _ = packed_attention(MODULE, query, key, value, Pattern(causal, CPU))
    assert torch.isfinite(packed[:, well]).all()


def test_a_keyword_of_unknown_meaning_is_refused_by_name() -> None:
    with attending(lambda: PACK), pytest.raises(TypeError, match="position_bias"):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU), position_bias=torch.zeros(1))
    with attending(lambda: PACK):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU), position_bias=None, sliding_window=3)


def test_attention_without_a_pack_or_a_pattern_is_refused() -> None:
    with pytest.raises(RuntimeError, match="cannot be called by itself"):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU))
    with attending(lambda: PACK), pytest.raises(TypeError, match="mask pattern"):
        packed_attention(MODULE, *projections(), None)


def test_plain_patterns_need_no_mask() -> None:
    assert Pattern(causal, CPU).mask(5) == (None, True)
    assert Pattern(everything, CPU).mask(5) == (None, False)
    mask, is_causal = Pattern(window, CPU).mask(3)
    assert not is_causal
    assert mask is not None
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, True, True]]


def held_apart(seen: Sequence[int]) -> tuple[Pack, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Single tokens of runs that have seen so many others, and a cache with gaps between what they have seen."""
    torch.manual_seed(0)
    begin = np.cumsum([2, *(length + 3 for length in seen[:-1])])[::-1].copy()
    ones = np.ones(len(seen), np.int64)
    lanes = Lanes(((7,),) * len(seen), 0 * ones, np.arange(len(seen)), np.array(seen), begin)
    query, keys, values = (torch.randn(heads, 80, 8) for heads in (4, 2, 2))
    keys[:, 0] = values[:, 0] = 0
    return Pack.of(lanes), query[None, :, : len(seen)], keys, values


def each_alone(
    pack: Pack, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, function: Any
) -> torch.Tensor:
    found = []
    for place, lane in enumerate(pack.ordered.tolist()):
        end = int(pack.lanes.past[lane]) + 1
        own = slice(int(pack.lanes.region[lane]), int(pack.lanes.region[lane]) + end)
        mask = function(0, 0, torch.tensor([[end - 1]]), torch.arange(end)[None])
        q, k, v = query[:, :, place : place + 1], keys[None, :, own], values[None, :, own]
        found.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True))
    return torch.cat(found, 2).transpose(1, 2)


SEEN = [(1, 1, 1), (9, 2, 9, 3, 4, 1), (5,), (1, 2, 4, 8, 16)]


@pytest.mark.parametrize("seen", SEEN, ids=str)
@pytest.mark.parametrize("function", [causal, window, everything])
def test_tokens_attend_to_pasts_of_any_lengths_in_few_calls(function: Any, seen: tuple[int, ...]) -> None:
    pack, query, keys, values = held_apart(seen)
    rows = pack.decoded(CPU)
    assert sum(one.count for one in rows) == len(seen)
    assert all(int(one.lengths.min()) * 2 >= one.longest for one in rows)
    assert len(rows) <= 1 + np.log2(max(seen) + 1)
    pattern = Pattern(function, CPU)
    found = torch.cat([attend(one, query, (keys, values), pattern, 0.3) for one in rows], 1)
    torch.testing.assert_close(found, each_alone(pack, query, keys, values, function))


def test_behind_the_end_of_a_row_nothing_is_seen_even_if_it_is_infinite() -> None:
    pack, query, keys, values = held_apart((5, 6, 9))
    held = torch.zeros(80, dtype=torch.bool)
    for begin, past in zip(pack.lanes.region.tolist(), pack.lanes.past.tolist(), strict=True):
        held[begin : begin + past + 1] = True
    wild = values.clone()
    wild[:, ~held] = torch.inf
    wild[:, 0] = 0
    (rows,) = pack.decoded(CPU)
    pattern = Pattern(causal, CPU)
    whole, own = (attend(rows, query, (keys, value), pattern, 0.3) for value in (wild, values))
    assert torch.equal(whole, own)


def flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor,
    *rest: Any, scale: float, window_size_left: int, window_size_right: int,
    seqused_k: torch.Tensor | None = None, **_: Any,
) -> tuple[torch.Tensor]:  # fmt: skip
    """What torch's kernel computes, run by run."""
    found = []
    for lane in range(len(queries) - 1):
        begin = int(keys[lane])
        end = int(keys[lane + 1]) if seqused_k is None else begin + int(seqused_k[lane])
        place = torch.arange(end - begin)
        last = place[len(place) - int(queries[lane + 1] - queries[lane]) :, None]
        mask = place <= last if window_size_right == 0 else torch.ones(len(last), len(place), dtype=torch.bool)
        mask = mask if window_size_left < 0 else mask & (place >= last - window_size_left)
        q, k, v = (one.transpose(0, 1)[None] for one in (query[queries[lane] : queries[lane + 1]], key, value))
        k, v = k[:, :, begin:end], v[:, :, begin:end]
        part = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
        found.append(part[0].transpose(0, 1))
    return (torch.cat(found),)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("function", [causal, window])
def test_a_kernel_for_any_lengths_looks_at_the_cache_where_it_lies(
    function: Any, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gathering(*args: Any, seqused_k: Any = None, **keywords: Any) -> Any:
        if seqused_k is not None:
            raise TypeError("it knows no such argument")
        return flash(*args, **keywords)

    monkeypatch.setattr(varlen, "flash", flash if in_place else gathering)
    varlen.reads_in_place.cache_clear()
    pack, query, keys, values = held_apart((9, 2, 9, 3, 4, 1))
    windows = Pattern(function, CPU).windows(pack)
    assert windows is not None
    found = varlen.attend(pack, query, query, query, (keys, values), 0.3, windows)
    assert varlen.reads_in_place(CPU, torch.float32) is in_place
    varlen.reads_in_place.cache_clear()
    torch.testing.assert_close(found, each_alone(pack, query, keys, values, function))


@pytest.mark.gpu
@pytest.mark.parametrize("function", [causal, window])
def test_the_kernel_of_a_gpu_looks_at_the_cache_where_it_lies(function: Any) -> None:
    pack, query, keys, values = held_apart((9, 2, 9, 3, 4, 1))
    gpu = torch.device("cuda", 0)
    half, *held = (one.to(gpu, torch.bfloat16) for one in (query, keys, values))
    windows = Pattern(function, gpu).windows(pack)
    assert windows is not None
    found = varlen.attend(pack, half, half, half, (held[0], held[1]), 0.3, windows)
    assert varlen.reads_in_place(gpu, torch.bfloat16)
    wanted = each_alone(pack, query, keys, values, function)
    torch.testing.assert_close(found.float().cpu(), wanted, atol=0.05, rtol=0.05)


def test_a_pattern_that_is_no_window_is_not_taken_for_one() -> None:
    def chunks(_: object, __: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (key // 3 == query // 3)

    pack, *_ = held_apart((9, 2, 9, 3, 4, 1))
    assert Pattern(chunks, CPU).windows(pack) is None
