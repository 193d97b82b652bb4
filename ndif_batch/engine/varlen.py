"""Attention over runs of any lengths in one kernel, where torch has one: CUDA, half precision."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ndif_batch.engine.norms import is_close
from ndif_batch.engine.pack import Lengths, Pack

flash: Any = getattr(torch.ops.aten, "_flash_attention_forward", None)
"""What ``torch.nn.attention.varlen`` calls; by way of that each call takes the host some 0.3 ms more."""

FEWEST_GROUPS = 3
"""From so many groups on one call of the kernel is cheaper than a call of SDPA for each.

Measured on an H100 (torch 2.11): both take the GPU equally long within 5 % (8 of 512 tokens to 768 of 24);
the kernel's launch takes the host as long as two calls of SDPA and the cutting of their rows.
"""
WIDEST_HEAD = 256
SHAPES = ((3, 4, 16), (2, 16, 16))


def is_faster(pack: Pack, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel can do it and is faster than SDPA group by group."""
    return (
        flash is not None
        and query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] == value.shape[-1] <= WIDEST_HEAD
        and query.shape[-1] % 8 == 0
        and (len(pack.groups) >= FEWEST_GROUPS or pack.fresh < pack.tokens)
    )


def attend(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    held: tuple[torch.Tensor, torch.Tensor] | None,
    scale: float,
    windows: tuple[tuple[int, int], tuple[int, int]],
) -> torch.Tensor:
    """Attention of every run to itself alone, ``[1, tokens, heads, width]``; arguments as transformers gives them.

    ``held`` are the keys and values of a cache, ``[heads, slots, width]``, to which lanes with a past attend, and the
    second of the ``windows`` is for these. The kernel lays the last query of a run to its last key, which is what a
    branch needs, and takes fewer heads of keys than of queries.
    """
    fresh, device = pack.fresh, query.device
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    parts = []
    if fresh:
        parts.append(_attended(pack.lengths(device), query[:fresh], key[:fresh], value[:fresh], scale, windows[0]))
    if held is not None and fresh < pack.tokens:
        keys, values = (store.transpose(0, 1) for store in held)
        lengths = pack.held(device) if reads_in_place(device, query.dtype) else pack.lengths(device, cached=True)
        parts.append(_attended(lengths, query[fresh:], keys, values, scale, windows[1]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


@cache
def reads_in_place(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel is seen to read each run's keys where these lie, with gaps between the runs."""
    generator = torch.Generator(device).manual_seed(0)
    query, store = (torch.randn(shape, generator=generator, device=device).to(dtype) for shape in SHAPES)
    queries, ends, begin = (
        torch.tensor(numbers, dtype=torch.int32, device=device) for numbers in ([0, 1, 2, 3], [0, 3, 7, 12], [1, 9, 4])
    )
    slots = torch.tensor([1, 2, 3, 9, 10, 11, 12, 4, 5, 6, 7, 8], device=device)
    lengths = Lengths(queries, ends, 1, 5, slots)
    in_place = lengths.in_place(begin)
    try:
        apart, together = (
            _attended(own, query, store.transpose(0, 1), store.transpose(0, 1), 0.5, (-1, 0))
            for own in (in_place, lengths)
        )
    except (RuntimeError, TypeError):
        return False
    return is_close(apart, together)


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
        key if lengths.used is not None else key.contiguous(),
        value if lengths.used is not None else value.contiguous(),
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
        **({} if lengths.used is None else {"seqused_k": lengths.used}),
    )[0]
    return result
