"""Attention over runs of any lengths in one kernel, where torch has one: CUDA, half precision."""

from __future__ import annotations

from typing import Any

import torch

from ndif_batch.engine.pack import Lengths, Pack

flash: Any = getattr(torch.ops.aten, "_flash_attention_forward", None)
"""What ``torch.nn.attention.varlen`` calls; by way of that each call takes the host some 0.3 ms more."""

FEWEST_GROUPS = 3
"""From so many groups on one call of the kernel is cheaper than a call of SDPA for each.

Measured on an H100 (torch 2.11): both take the GPU equally long within 5 % (8 of 512 tokens to 768 of 24);
the kernel's launch takes the host as long as two calls of SDPA and the cutting of their rows.
"""
WIDEST_HEAD = 256


def is_faster(pack: Pack, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel can do it and is faster than SDPA group by group."""
    return (
        flash is not None
        and query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= WIDEST_HEAD
        and query.shape[-1] % 8 == 0
        and len(pack.groups) >= FEWEST_GROUPS
    )


def attend(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    held: tuple[torch.Tensor, torch.Tensor] | None,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    """Attention of every run to itself alone, ``[1, tokens, heads, width]``; arguments as transformers gives them.

    ``held`` are the keys and values of a cache, ``[heads, slots, width]``, to which lanes with a past attend. The
    kernel lays the last query of a run to its last key, which is what a branch needs, and takes fewer heads of keys
    than of queries.
    """
    fresh, device = pack.fresh, query.device
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    parts = []
    if fresh:
        parts.append(_attended(pack.lengths(device), query[:fresh], key[:fresh], value[:fresh], scale, window))
    if held is not None and fresh < pack.tokens:
        keys, values = (store.transpose(0, 1) for store in held)
        parts.append(_attended(pack.lengths(device, cached=True), query[fresh:], keys, values, scale, window))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def _attended(
    lengths: Lengths,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    if lengths.keys is not None:
        key, value = (tensor.index_select(0, lengths.keys) for tensor in (key, value))
    result: torch.Tensor = flash(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        lengths.queries_from,
        lengths.keys_from,
        lengths.longest_queries,
        lengths.longest,
        0.0,
        window == (-1, 0),
        return_debug_mask=False,
        scale=scale,
        window_size_left=window[0],
        window_size_right=window[1],
    )[0]
    return result
