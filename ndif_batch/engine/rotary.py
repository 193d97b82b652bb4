"""Rotary position embeddings of a model in one kernel in place of ten, where that gives the same values."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, TypeAlias

import torch
from torch import nn

from ndif_batch.engine.norms import is_close, of_kind

Turn: TypeAlias = Callable[..., tuple[torch.Tensor, torch.Tensor]]

NAME: Final = "apply_rotary_pos_emb"
"""What the function is called wherever transformers has it."""
SHAPES: Final = ((1, 4, 5, 16), (1, 2, 5, 16))


def join_rotations(model: nn.Module) -> None:
    """Has a model's attention modules on a GPU turn queries and keys by our kernel, if that is seen to do the same."""
    weight = next(model.parameters(), None)
    if weight is None or not weight.is_cuda:
        return
    known: dict[Turn, Turn | None] = {}
    for module in model.modules():
        forward: Any = type(module).forward
        if isinstance(forward, FunctionType) and NAME in forward.__code__.co_names:
            original = forward.__globals__.get(NAME)
            if original is not None and original not in known:
                known[original] = _joined(original, weight)
            if original is not None and (joined := known[original]) is not None:
                of_kind(module, _with_global(forward, joined))


def _with_global(function: FunctionType, joined: Turn) -> FunctionType:
    """The function with another one under the name: other models of the class keep theirs."""
    own = FunctionType(
        function.__code__,
        {**function.__globals__, NAME: joined},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return own


def _joined(original: Turn, like: torch.Tensor) -> Turn | None:
    """``original`` by one kernel where that is possible; ``None`` if it computes something else."""
    try:
        from ndif_batch.engine.rotary_kernel import turned
    except ImportError:
        return None

    def turn(
        query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *rest: Any, **more: Any
    ) -> Any:
        if rest or more or not _is_plain(query, key, cos, sin):
            return original(query, key, cos, sin, *rest, **more)
        return turned(query, key, cos, sin)

    return turn if _is_same(original, turn, like) else None


def _is_plain(query: Any, key: Any, cos: Any, sin: Any) -> bool:
    """Whether the kernel knows these: all on one GPU, in one dtype, of one row, turned as a whole; no gradients."""
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        return False
    shape = (1, query.shape[2], query.shape[3])
    return (
        query.is_cuda
        and query.dtype is key.dtype is cos.dtype is sin.dtype
        and query.shape[0] == 1
        and key.shape[2:] == query.shape[2:]
        and tuple(cos.shape) == tuple(sin.shape) == shape
        and all(tensor.stride(-1) == 1 for tensor in (query, key, cos, sin))
    )


@torch.no_grad()
def _is_same(original: Turn, turn: Turn, like: torch.Tensor) -> bool:
    generator = torch.Generator(like.device).manual_seed(0)
    shapes = (*SHAPES, (1, *SHAPES[0][2:]), (1, *SHAPES[0][2:]))
    given = [torch.randn(shape, generator=generator, device=like.device).to(like.dtype) for shape in shapes]
    try:
        return all(map(is_close, turn(*given), original(*given)))
    except Exception:  # noqa: BLE001  a function of another kind, or no compiler for the kernel: it stays as it is
        return False
