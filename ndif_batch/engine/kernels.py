"""The torch function of every pure operation. None changes what it is given; random ones draw from a generator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812  torch's own abbreviation
from torch import Tensor

from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.graph.numbers import Number, calculate
from ndif_batch.graph.operations import OPERATIONS, Operation

Function: TypeAlias = Callable[..., Any]

DTYPES: Final[Mapping[str, torch.dtype]] = {name: getattr(torch, name) for name in ITEM_BYTES}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A pure operation on real values: call it with a node's arguments, resolved; slices are Python's.

    ``device`` is where an operation that takes no tensor makes one. ``generator`` is what a random operation draws
    from; its result is moved to the device, so that it is the same on every device.
    """

    operation: Operation
    function: Function
    makes: bool

    def __call__(
        self,
        *args: Any,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Any:
        """The operation's value."""
        bound = self.operation.arrange(args, kwargs)
        if bound.get("dtype") is not None:
            bound["dtype"] = DTYPES[bound["dtype"]]
        if self.makes:
            bound["device"] = device
        if self.operation.random:
            bound["generator"] = generator
        return self.function(**bound)


def _sizes(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else size


def _arithmetic(name: str) -> Function:
    function = getattr(operator, name)

    def kernel(input: Tensor | Number, other: Tensor | Number) -> Tensor | Number:
        if isinstance(input, Tensor) or isinstance(other, Tensor):
            result: Tensor = function(input, other)
            return result
        return calculate(name, input, other)

    return kernel


def _signed(name: str) -> Function:
    function = getattr(torch, name)

    def kernel(input: Tensor | Number) -> Tensor | Number:
        if isinstance(input, Tensor):
            result: Tensor = function(input)
            return result
        return calculate(name, input)

    return kernel


def _bitwise(function: Function) -> Function:
    return lambda input, other: function(input, other)


def _with_places(function: Function) -> Function:
    """``max`` and its like: one value, or with a dimension values and their places."""

    def kernel(input: Tensor, dim: int | None, keepdim: bool) -> Any:
        return function(input) if dim is None else tuple(function(input, dim, keepdim))

    return kernel


def _over_all(function: Function) -> Function:
    """``amax`` and its like, which take no ``None`` for all dimensions."""
    return lambda input, dim, keepdim: function(input, () if dim is None else dim, keepdim)


def _spread(function: Function) -> Function:
    """``var`` and ``std`` with the older way to say whether they are unbiased."""

    def kernel(input: Tensor, dim: Any, correction: float, keepdim: bool, unbiased: bool | None) -> Any:
        delta = correction if unbiased is None else int(unbiased)
        return function(input, dim, correction=delta, keepdim=keepdim)

    return kernel


def _prod(input: Tensor, dim: int | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    return torch.prod(input, dtype=dtype) if dim is None else torch.prod(input, dim, keepdim, dtype=dtype)


def _norm(input: Tensor, p: float, dim: Any, keepdim: bool) -> Tensor:
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


def _getitem(input: Any, index: Any) -> Any:
    if isinstance(input, Tensor):
        return input[_index(index, input.device)]
    return input[index[0] if isinstance(index, tuple) else index]


def _setitem(input: Any, index: Any, value: Any) -> Any:
    if isinstance(input, Tensor):
        copy = input.clone()
        copy[_index(index, input.device)] = value.to(input.dtype) if isinstance(value, Tensor) else value
        return copy
    first, deeper = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
    items = list(input)
    items[first] = _setitem(items[first], deeper, value) if deeper else value
    return tuple(items)


def _scatter(input: Tensor, dim: int, index: Tensor, src: Tensor | Number) -> Tensor:
    if isinstance(src, Tensor):
        return torch.scatter(input, dim, index, src)
    return torch.scatter(input, dim, index, value=src)


def _squeeze(input: Tensor, dim: Any) -> Tensor:
    return torch.squeeze(input) if dim is None else torch.squeeze(input, dim)


def _size(input: Tensor, dim: int | None) -> int | tuple[int, ...]:
    return tuple(input.shape) if dim is None else input.shape[dim]


def _normalized(function: Function) -> Function:
    return lambda input, normalized_shape, **options: function(input, _sizes(normalized_shape), **options)


def _arange(start: Number, end: Number | None, step: Number, dtype: Any, device: Any) -> Tensor:
    first, last = (0, start) if end is None else (start, end)
    return torch.arange(first, last, step, dtype=dtype, device=device)


def _filled(function: Function) -> Function:
    return lambda size, dtype, device: function(_sizes(size), dtype=dtype, device=device)


def _drawn(function: Function) -> Function:
    return lambda size, dtype, device, generator: function(_sizes(size), dtype=dtype, generator=generator).to(device)


def _drawn_like(function: Function) -> Function:
    def kernel(input: Tensor, dtype: torch.dtype | None, generator: torch.Generator) -> Tensor:
        drawn: Tensor = function(input.shape, dtype=dtype or input.dtype, generator=generator)
        return drawn.to(input.device)

    return kernel


def _randint(low: int, high: int, size: Any, device: Any, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, _sizes(size), generator=generator).to(device)


def _randperm(n: int, device: Any, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator).to(device)


_ELEMENTWISE: Final[Mapping[str, Function]] = {
    **{name: _arithmetic(name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")},
    **{name: _arithmetic(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "neg": _signed("neg"),
    "abs": _signed("abs"),
    "bitwise_and": _bitwise(operator.and_),
    "bitwise_or": _bitwise(operator.or_),
    "bitwise_xor": _bitwise(operator.xor),
    "bitwise_not": torch.bitwise_not,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "logical_not": torch.logical_not,
    "where": lambda condition, input, other: torch.where(condition, input, other),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "clamp": torch.clamp,
    "lerp": torch.lerp,
    "isclose": torch.isclose,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "nan_to_num": torch.nan_to_num,
    "clone": torch.clone,
    "detach": torch.detach,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "atan": torch.atan,
    "erf": torch.erf,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": lambda input, decimals: torch.round(input, decimals=decimals) if decimals else torch.round(input),
    "sign": torch.sign,
    "square": torch.square,
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "logsigmoid": lambda input: F.logsigmoid(input),
    "softplus": F.softplus,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}

_REDUCTIONS: Final[Mapping[str, Function]] = {
    "sum": torch.sum,
    "prod": _prod,
    "mean": torch.mean,
    "var": _spread(torch.var),
    "std": _spread(torch.std),
    "max": _with_places(torch.max),
    "min": _with_places(torch.min),
    "median": _with_places(torch.median),
    "amax": _over_all(torch.amax),
    "amin": _over_all(torch.amin),
    "argmax": torch.argmax,
    "argmin": torch.argmin,
    "any": torch.any,
    "all": torch.all,
    "count_nonzero": torch.count_nonzero,
    "norm": _norm,
    "cumsum": torch.cumsum,
    "cumprod": torch.cumprod,
    "diff": torch.diff,
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "logsumexp": torch.logsumexp,
    "sort": lambda input, dim, descending: tuple(torch.sort(input, dim=dim, descending=descending, stable=True)),
    "argsort": lambda input, dim, descending: torch.argsort(input, dim=dim, descending=descending, stable=True),
    "topk": lambda input, **options: tuple(torch.topk(input, **options)),
    "quantile": torch.quantile,
}

_LAYOUT: Final[Mapping[str, Function]] = {
    "reshape": lambda input, shape: torch.reshape(input, _sizes(shape)),
    "view": lambda input, shape: torch.reshape(input, _sizes(shape)),
    "transpose": torch.transpose,
    "permute": lambda input, dims: torch.permute(input, _sizes(dims)),
    "movedim": torch.movedim,
    "flatten": torch.flatten,
    "unflatten": lambda input, dim, sizes: torch.unflatten(input, dim, _sizes(sizes)),
    "squeeze": _squeeze,
    "unsqueeze": torch.unsqueeze,
    "expand": lambda input, size: input.expand(_sizes(size)),
    "expand_as": lambda input, other: input.expand(other.shape),
    "diagonal": torch.diagonal,
    "size": _size,
    "split": lambda input, split_size_or_sections, dim: torch.split(input, split_size_or_sections, dim),
    "chunk": torch.chunk,
    "unbind": torch.unbind,
    "cat": torch.cat,
    "stack": torch.stack,
    "repeat": lambda input, repeats: input.repeat(_sizes(repeats)),
    "repeat_interleave": lambda input, repeats, dim: torch.repeat_interleave(input, repeats, dim),
    "flip": lambda input, dims: torch.flip(input, _sizes(dims)),
    "roll": lambda input, shifts, dims: torch.roll(input, shifts, () if dims is None else dims),
    "tril": torch.tril,
    "triu": torch.triu,
    "pad": lambda input, pad, value: F.pad(input, _sizes(pad), value=value),
    "cast": lambda input, dtype: input.to(dtype),
}

_INDEXING: Final[Mapping[str, Function]] = {
    "getitem": _getitem,
    "setitem": _setitem,
    "gather": torch.gather,
    "scatter": _scatter,
    "scatter_add": torch.scatter_add,
    "index_select": torch.index_select,
    "index_add": torch.index_add,
    "take_along_dim": torch.take_along_dim,
    "masked_fill": lambda input, mask, value: torch.masked_fill(input, mask, value),
    "embedding": F.embedding,
    "one_hot": lambda input, num_classes: F.one_hot(input, num_classes),
}

_ALGEBRA: Final[Mapping[str, Function]] = {
    "matmul": torch.matmul,
    "bmm": torch.bmm,
    "dot": torch.dot,
    "outer": torch.outer,
    "einsum": lambda equation, operands: torch.einsum(equation, *operands),
    "linear": lambda input, weight, bias: F.linear(input, weight, bias),
    "layer_norm": _normalized(F.layer_norm),
    "rms_norm": _normalized(F.rms_norm),
    "normalize": F.normalize,
    "cosine_similarity": F.cosine_similarity,
    "cross_entropy": F.cross_entropy,
    "kl_div": F.kl_div,
    "mse_loss": F.mse_loss,
}

_CREATION: Final[Mapping[str, Function]] = {
    "arange": _arange,
    "linspace": torch.linspace,
    "zeros": _filled(torch.zeros),
    "ones": _filled(torch.ones),
    "full": lambda size, fill_value, **where: torch.full(_sizes(size), fill_value, **where),
    "eye": lambda n, m, **where: torch.eye(n, n if m is None else m, **where),
    "rand": _drawn(torch.rand),
    "randn": _drawn(torch.randn),
    "randint": _randint,
    "randperm": _randperm,
}

_LIKE: Final[Mapping[str, Function]] = {
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": torch.full_like,
    "rand_like": _drawn_like(torch.rand),
    "randn_like": _drawn_like(torch.randn),
}

KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {
        name: Kernel(OPERATIONS[name], function, name in _CREATION)
        for family in (_ELEMENTWISE, _REDUCTIONS, _LAYOUT, _INDEXING, _ALGEBRA, _CREATION, _LIKE)
        for name, function in family.items()
    }
)
