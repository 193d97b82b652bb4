"""Indices outside their tensor, found before a GPU meets them: there they would end the process, not the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn


def check_places(places: Tensor, length: int, *, first: int = 0) -> None:
    """``IndexError`` unless every element of ``places`` is in ``first`` … ``length`` - 1."""
    if places.numel() and places.dtype != torch.bool:
        low, high = (int(bound) for bound in torch.aminmax(places))
        if low < first or high >= length:
            wrong = low if low < first else high
            raise IndexError(f"index {wrong} is outside a dimension of size {length}")


def guard_tables(model: nn.Module) -> None:
    """Has every table of vectors in a model raise ``IndexError`` for a row that it lacks."""

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(module, nn.Embedding):
            check_places(args[0], module.num_embeddings)

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(check)


def check_index(shape: tuple[int, ...], index: Any) -> None:
    """``IndexError`` if a tensor inside ``index`` points outside a value of ``shape``; torch itself checks the rest."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = sum(_axes(part) for part in parts)
    axis = 0
    for part in parts:
        if part is ...:
            axis += len(shape) - taken
            continue
        if isinstance(part, Tensor) and part.dtype != torch.bool and axis < len(shape):
            check_places(part, shape[axis], first=-shape[axis])
        axis += _axes(part)


def _axes(part: Any) -> int:
    """How many axes a part of an index takes."""
    if part is None or part is ...:
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1


def _indexed(input: Any, index: Any, **_: Any) -> None:
    if isinstance(input, Tensor):
        check_index(tuple(input.shape), index)


def _along(input: Tensor, dim: int, index: Tensor, **_: Any) -> None:
    check_places(index, input.shape[dim] if input.ndim else 1)


def _classes(input: Tensor, target: Tensor, ignore_index: int, **_: Any) -> None:
    if not target.is_floating_point():
        check_places(target[target != ignore_index], input.shape[1 if input.ndim > 1 else 0])


CHECKS: Final[Mapping[str, Callable[..., None]]] = MappingProxyType(
    {
        "getitem": _indexed,
        "setitem": _indexed,
        "gather": _along,
        "scatter": _along,
        "scatter_add": _along,
        "index_select": _along,
        "index_add": _along,
        "embedding": lambda input, weight, **_: check_places(input, weight.shape[0]),
        "one_hot": lambda input, num_classes, **_: check_places(input, num_classes),
        "cross_entropy": _classes,
    }
)
"""What has to hold for the arguments of an operation beyond their shapes."""
