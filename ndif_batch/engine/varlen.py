"""Attention over runs of any lengths in one kernel, where torch has one: CUDA, half precision."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch

from ndif_batch.engine.pack import Pack

try:
    from torch.nn.attention.varlen import varlen_attn as _kernel
except ImportError:  # torch before 2.10
    varlen_attn: Callable[..., Any] | None = None
else:
    varlen_attn = _kernel

FEWEST_GROUPS = 3
"""From so many groups on one call of the kernel is cheaper than a call of SDPA for each.

Measured on an H100 (torch 2.11): both take the GPU equally long within 5 % (8 of 512 tokens to 768 of 24);
the kernel's launch takes the host 105 µs, SDPA's 31 µs and as much again to cut its rows.
"""
WIDEST_HEAD = 256

_GROUPED: dict[str, Any] = (
    {} if varlen_attn is None or "enable_gqa" not in signature(varlen_attn).parameters else {"enable_gqa": True}
)


def is_faster(pack: Pack, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel can do it and is faster than SDPA group by group."""
    return (
        varlen_attn is not None
        and query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= WIDEST_HEAD
        and query.shape[-1] % 8 == 0
        and len(pack.groups) >= FEWEST_GROUPS
    )


def attend(
    pack: Pack, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: tuple[int, int]
) -> torch.Tensor:
    """Attention of every run to itself alone, ``[1, tokens, heads, width]``; arguments as transformers gives them.

    The kernel lays the last query of a run to its last key, which is what a branch needs.
    """
    lengths = pack.lengths(query.device)
    key, value = (tensor[0].transpose(0, 1) for tensor in (key, value))
    if lengths.keys is not None:
        key, value = key[lengths.keys], value[lengths.keys]
    grouped = _GROUPED if query.shape[1] != key.shape[1] else {}
    assert varlen_attn is not None
    result: torch.Tensor = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key.contiguous(),
        value.contiguous(),
        lengths.queries_from,
        lengths.keys_from,
        lengths.longest_queries,
        lengths.longest,
        scale=scale,
        window_size=window,
        **grouped,
    )
    return result[None]
