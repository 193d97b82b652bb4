"""What leaves the device: saved tensors, copied beside the computation, and printed text."""

from __future__ import annotations

from typing import Any

import torch

from ndif_batch.engine.values import Each, Rows

PRINTED_CHARACTERS = 2000


def saved(value: Any) -> Any:
    """A value to save, in main memory: a tensor, or one for every task; ``TypeError`` for what is neither.

    From a GPU it is copied on a stream of its own: wait for :func:`copies` before looking at it.
    """
    if isinstance(value, Each):
        return Each(_copied(value.stacked))
    if isinstance(value, Rows):
        return Rows(tuple(saved(own) for own in value.values))
    if isinstance(value, torch.Tensor):
        return _copied(value)
    if isinstance(value, bool | int | float):
        return torch.tensor(value)
    raise TypeError(f"only a tensor or a number can be saved, not {type(value).__name__}")


def copies() -> tuple[torch.cuda.Event, ...]:
    """What to wait for until everything that was saved so far is in main memory."""
    return tuple(stream.record_event() for stream in _streams.values())


def shown(value: Any) -> str:
    """A value as text, not too long."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return str(value)[:PRINTED_CHARACTERS]


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copied(tensor: torch.Tensor) -> torch.Tensor:
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
