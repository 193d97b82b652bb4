"""torch's functions under the table's signatures, where these differ: ``None``, numbers, indices, generators."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ndif_batch.graph.numbers import Number, calculate
from ndif_batch.graph.shapes import many

Function: TypeAlias = Callable[..., Any]


def arithmetic(name: str) -> Function:
    """A binary operator: torch's on tensors, the table's own on two numbers."""
    function = getattr(operator, name)

    def kernel(input: Tensor | Number, other: Tensor | Number) -> Tensor | Number:
        if isinstance(input, Tensor) or isinstance(other, Tensor):
            result: Tensor = function(input, other)
            return result
        return calculate(name, input, other)

    return kernel


def signed(name: str) -> Function:
    """``neg`` and ``abs``: torch's on a tensor, the table's own on a number."""
    function = getattr(torch, name)

    def kernel(input: Tensor | Number) -> Tensor | Number:
        if isinstance(input, Tensor):
            result: Tensor = function(input)
            return result
        return calculate(name, input)

    return kernel


def bitwise(function: Function) -> Function:
    """A bitwise operator; torch's functions take no number, Python's operators do."""
    return lambda input, other: function(input, other)


def with_places(function: Function) -> Function:
    """``max`` and its like: one value, or with a dimension values and their places."""

    def kernel(input: Tensor, dim: int | None, keepdim: bool) -> Any:
        return function(input) if dim is None else tuple(function(input, dim, keepdim))

    return kernel


def over_all(function: Function) -> Function:
    """``amax`` and its like, which take no ``None`` for all dimensions."""
    return lambda input, dim, keepdim: function(input, () if dim is None else dim, keepdim)


def spread(function: Function) -> Function:
    """``var`` and ``std`` with the older way to say whether they are unbiased."""

    def kernel(input: Tensor, dim: Any, correction: float, keepdim: bool, unbiased: bool | None) -> Any:
        delta = correction if unbiased is None else int(unbiased)
        return function(input, dim, correction=delta, keepdim=keepdim)

    return kernel


def prod(input: Tensor, dim: int | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    """Product, over one dimension or all."""
    return torch.prod(input, dtype=dtype) if dim is None else torch.prod(input, dim, keepdim, dtype=dtype)


def norm(input: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
    """Vector norm."""
    result: Tensor = torch.linalg.vector_norm(input, p, dim, keepdim)
    return result


def _index(index: Any, device: torch.device) -> Any:
    """``index`` for torch: tuples inside it are lists of positions, or masks."""
    if not isinstance(index, tuple):
        return index
    return tuple(_positions(item, device) if isinstance(item, tuple) else item for item in index)


def _positions(items: tuple[Any, ...], device: torch.device) -> Tensor:
    is_mask = bool(items) and all(isinstance(item, bool) for item in items)
    return torch.tensor(items, dtype=torch.bool if is_mask else torch.int64, device=device)


def getitem(input: Any, index: Any) -> Any:
    """``input[index]``: lists in the index are tuples here; an int picks an item of a tuple."""
    if isinstance(input, Tensor):
        return input[_index(index, input.device)]
    return input[index[0] if isinstance(index, tuple) else index]


def setitem(input: Any, index: Any, value: Any) -> Any:
    """A copy of ``input`` after ``input[index] = value``; of a tuple, a new tuple with one item changed."""
    if isinstance(input, Tensor):
        copy = input.clone()
        copy[_index(index, input.device)] = value.to(input.dtype) if isinstance(value, Tensor) else value
        return copy
    first, deeper = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
    items = list(input)
    items[first] = setitem(items[first], deeper, value) if deeper else value
    return tuple(items)


def scatter(input: Tensor, dim: int, index: Tensor, src: Tensor | Number) -> Tensor:
    """``scatter`` of a tensor or of one number."""
    if isinstance(src, Tensor):
        return torch.scatter(input, dim, index, src)
    return torch.scatter(input, dim, index, value=src)


def squeeze(input: Tensor, dim: Any) -> Tensor:
    """Without dimensions of length 1, all or those given."""
    return torch.squeeze(input) if dim is None else torch.squeeze(input, dim)


def size(input: Tensor, dim: int | None) -> int | tuple[int, ...]:
    """Lengths as plain ints."""
    return tuple(input.shape) if dim is None else input.shape[dim]


def normalized(function: Function) -> Function:
    """``layer_norm`` and ``rms_norm`` with a shape that may be one int."""
    return lambda input, normalized_shape, **options: function(input, many(normalized_shape), **options)


def arange(start: Number, end: Number | None, step: Number, dtype: Any, device: Any) -> Tensor:
    """A range; ``start`` alone is its end."""
    first, last = (0, start) if end is None else (start, end)
    return torch.arange(first, last, step, dtype=dtype, device=device)


def filled(function: Function) -> Function:
    """``zeros`` and ``ones`` with a size that may be one int."""
    return lambda size, dtype, device: function(many(size), dtype=dtype, device=device)


def drawn(function: Function) -> Function:
    """``rand`` and ``randn``, drawn where the generator is and moved."""
    return lambda size, dtype, device, generator: function(many(size), dtype=dtype, generator=generator).to(device)


def drawn_like(function: Function) -> Function:
    """``rand_like`` and ``randn_like``, drawn where the generator is and moved to the input's device."""

    def kernel(input: Tensor, dtype: torch.dtype | None, generator: torch.Generator) -> Tensor:
        drawn: Tensor = function(input.shape, dtype=dtype or input.dtype, generator=generator)
        return drawn.to(input.device)

    return kernel


def randint(low: int, high: int, size: Any, device: Any, generator: torch.Generator) -> Tensor:
    """Random ints, drawn where the generator is and moved."""
    return torch.randint(low, high, many(size), generator=generator).to(device)


def randperm(n: int, device: Any, generator: torch.Generator) -> Tensor:
    """A random order, drawn where the generator is and moved."""
    return torch.randperm(n, generator=generator).to(device)
