"""Tensors that an experiment brings along: torch or numpy, named by the digest of their content."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ndif_batch import blobs
from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.trace.place import refusal


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a torch tensor or a numpy array."""
    return isinstance(value, np.ndarray) or _is_torch(value, "Tensor")


def is_dtype(value: object) -> bool:
    """Whether ``value`` is a dtype of torch or numpy."""
    return isinstance(value, np.dtype) or _is_torch(value, "dtype")


def dtype_name(dtype: object) -> str:
    """``float32`` for ``torch.float32`` and ``numpy.dtype("float32")``."""
    return str(dtype).removeprefix("torch.")


def take(constants: dict[str, Any], tensor: Any) -> str:
    """Puts a copy of ``tensor`` among ``constants`` and gives its digest: later changes do not reach the experiment."""
    dtype = dtype_name(tensor.dtype)
    if dtype not in ITEM_BYTES:
        raise refusal(f"a constant cannot be of dtype {dtype}", hint=f"convert it to one of {', '.join(ITEM_BYTES)}")
    copy = np.array(tensor, order="C") if isinstance(tensor, np.ndarray) else tensor.detach().cpu().clone()
    digest = blobs.digest(blobs.encode(copy))
    constants.setdefault(digest, copy)
    return digest


def _is_torch(value: object, kind: str) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, kind))
