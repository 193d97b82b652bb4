"""Packed attention: every run as if it were alone, and no keyword swallowed whose meaning is not known."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from ndif_batch.engine.attention import Pattern, attending, packed_attention
from ndif_batch.engine.pack import Pack

CPU = torch.device("cpu")
RUNS = [(1, 2, 3, 4, 5), (1, 2), (3, 4, 5, 6, 7), (9,)]
PACK = Pack.of(RUNS, CPU)
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
    with attending(PACK):
        packed, _ = packed_attention(MODULE, query, key, value, Pattern(function, CPU), scaling=0.3)  # type: ignore[arg-type]
    for segment in PACK.segments:
        q, k, v = (tensor[:, :, segment.first : segment.first + segment.length] for tensor in (query, key, value))
        places = torch.arange(segment.length)
        mask = function(0, 0, places[:, None], places[None])  # type: ignore[operator]
        alone = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
        seen = packed[:, segment.first : segment.first + segment.length]
        torch.testing.assert_close(seen, alone.transpose(1, 2))


def test_a_run_of_nan_does_not_reach_its_neighbours() -> None:
    query, key, value = projections()
    bad, well = PACK.segments[0], PACK.segments[2]
    key[:, :, bad.first : bad.first + bad.length] = float("nan")
    value[:, :, bad.first : bad.first + bad.length] = float("inf")
    with attending(PACK):
        packed, _ = packed_attention(MODULE, query, key, value, Pattern(causal, CPU))
    assert torch.isfinite(packed[:, well.first : well.first + well.length]).all()


def test_a_keyword_of_unknown_meaning_is_refused_by_name() -> None:
    with attending(PACK), pytest.raises(TypeError, match="position_bias"):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU), position_bias=torch.zeros(1))
    with attending(PACK):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU), position_bias=None, sliding_window=3)


def test_attention_without_a_pack_or_a_pattern_is_refused() -> None:
    with pytest.raises(RuntimeError, match="cannot be called by itself"):
        packed_attention(MODULE, *projections(), Pattern(causal, CPU))
    with attending(PACK), pytest.raises(TypeError, match="mask pattern"):
        packed_attention(MODULE, *projections(), None)


def test_plain_patterns_need_no_mask() -> None:
    assert Pattern(causal, CPU).mask(5) == (None, True)
    assert Pattern(everything, CPU).mask(5) == (None, False)
    mask, is_causal = Pattern(window, CPU).mask(3)
    assert not is_causal
    assert mask is not None
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, True, True]]
