"""Queries and keys turned by their positions in one kernel (Triton: for GPUs), rounded where transformers rounds."""

from __future__ import annotations

import torch
import triton
from triton import language as tl


def turned(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``query`` and ``key`` are ``[1, heads, tokens, width]``, ``cos`` and ``sin`` ``[1, tokens, width]``."""
    new = torch.empty_like(query), torch.empty_like(key)
    half = query.shape[3] // 2
    with torch.cuda.device(query.device):
        _turn[(query.shape[2],)](
            *(query, key, *new, cos, sin, query.shape[1], key.shape[1]),
            *(stride for tensor in (query, key, *new) for stride in (tensor.stride(2), tensor.stride(1))),
            *(cos.stride(1), sin.stride(1)),
            QUERIES=triton.next_power_of_2(query.shape[1]),
            KEYS=triton.next_power_of_2(key.shape[1]),
            HALF=half,
            WIDE=triton.next_power_of_2(half),
            enable_fp_fusion=False,
        )
    return new


@triton.jit
def _turn(
    query,
    key,
    new_query,
    new_key,
    cos,
    sin,
    query_heads,
    key_heads,
    query_token,
    query_head,
    key_token,
    key_head,
    new_query_token,
    new_query_head,
    new_key_token,
    new_key_head,
    cos_token,
    sin_token,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDE)[None, :]
    there = place < HALF
    near_cos = tl.load(cos + token * cos_token + place, mask=there)
    far_cos = tl.load(cos + token * cos_token + HALF + place, mask=there)
    near_sin = tl.load(sin + token * sin_token + place, mask=there)
    far_sin = tl.load(sin + token * sin_token + HALF + place, mask=there)

    _turn_heads(query + token * query_token, new_query + token * new_query_token, query_heads, query_head,
                new_query_head, near_cos, far_cos, near_sin, far_sin, QUERIES, HALF, WIDE)  # fmt: skip
    _turn_heads(key + token * key_token, new_key + token * new_key_token, key_heads, key_head,
                new_key_head, near_cos, far_cos, near_sin, far_sin, KEYS, HALF, WIDE)  # fmt: skip


@triton.jit
def _turn_heads(
    source,
    target,
    heads,
    source_head,
    target_head,
    near_cos,
    far_cos,
    near_sin,
    far_sin,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
):
    head, place = tl.arange(0, HEADS)[:, None], tl.arange(0, WIDE)[None, :]
    there = (head < heads) & (place < HALF)
    source += head * source_head + place
    target += head * target_head + place
    near, far = tl.load(source, mask=there), tl.load(source + HALF, mask=there)
    first = near * near_cos + -far * near_sin
    second = far * far_cos + near * far_sin
    tl.store(target, first, mask=there)
    tl.store(target + HALF, second, mask=there)
