"""What leaves the device: saved tensors, copied beside the computation, and printed text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ndif_batch.engine.values import Each, Rows, leaves, mapped

PRINTED_CHARACTERS = 2000
SMALL = 2**16
"""Bytes that are not worth a copy of their own."""


def saved(value: Any) -> Any:
    """A value to save: a tensor, or one for every task; ``TypeError`` for what is neither.

    It is in main memory, but for what is small on a GPU: :func:`landed` brings that.
    """
    if isinstance(value, Each):
        return Each(_saved(value.stacked))
    if isinstance(value, Rows):
        return Rows(tuple(saved(own) for own in value.values))
    if isinstance(value, torch.Tensor):
        return _saved(value)
    if isinstance(value, bool | int | float):
        return torch.tensor(value)
    raise TypeError(f"only a tensor or a number can be saved, not {type(value).__name__}")


def landed(values: Sequence[Any]) -> list[Any]:
    """Saved values in main memory, small ones of a GPU with one copy for all of a dtype."""
    waiting: dict[tuple[torch.device, torch.dtype], dict[int, torch.Tensor]] = {}
    for one in leaves(tuple(values)):
        for tensor in [one.stacked] if isinstance(one, Each) else one.values if isinstance(one, Rows) else [one]:
            if isinstance(tensor, torch.Tensor) and tensor.is_cuda:
                waiting.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor
    there: dict[int, torch.Tensor] = {}
    for group in waiting.values():
        together = in_main_memory(torch.cat([tensor.reshape(-1) for tensor in group.values()]))
        parts = torch.split(together, [tensor.numel() for tensor in group.values()])
        there |= {key: part.view(tensor.shape) for (key, tensor), part in zip(group.items(), parts, strict=True)}

    def leaf(one: Any) -> Any:
        if isinstance(one, Each):
            return Each(leaf(one.stacked))
        if isinstance(one, Rows):
            return Rows(tuple([leaf(own) for own in one.values]))
        return there.get(id(one), one)

    return [mapped(value, leaf) for value in values]


def copies() -> tuple[torch.cuda.Event, ...]:
    """What to wait for until everything that was saved so far is in main memory."""
    return tuple(stream.record_event() for stream in _streams.values())


def shown(value: Any) -> str:
    """A value as text, not too long."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return str(value)[:PRINTED_CHARACTERS]


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _saved(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_cuda and tensor.numel() * tensor.element_size() <= SMALL:
        return tensor.detach()
    return in_main_memory(tensor)


def in_main_memory(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that is none's but the caller's.

    From a GPU it is made on a stream of its own: wait for :func:`copies` before looking at it.
    """
    tensor = tensor.detach()
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True).contiguous()
    stream = _streams.get(tensor.device)
    if stream is None:
        stream = _streams[tensor.device] = torch.cuda.Stream(tensor.device)  # type: ignore[no-untyped-call]
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    return host
