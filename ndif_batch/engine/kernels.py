"""The torch function of every pure operation. None changes what it is given; random ones draw from a generator."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812  torch's own abbreviation

from ndif_batch.engine import functions
from ndif_batch.engine.bounds import CHECKS
from ndif_batch.engine.functions import Function
from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.graph.operations import OPERATIONS, Operation
from ndif_batch.graph.shapes import many

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
        if torch.device(device).type != "cpu" and self.operation.name in CHECKS:
            CHECKS[self.operation.name](**bound)
        if bound.get("dtype") is not None:
            bound["dtype"] = DTYPES[bound["dtype"]]
        if self.makes:
            bound["device"] = device
        if self.operation.random:
            bound["generator"] = generator
        return self.function(**bound)


_ELEMENTWISE: Final[Mapping[str, Function]] = {
    **{name: functions.arithmetic(name) for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")},
    **{name: functions.arithmetic(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "neg": functions.signed("neg"),
    "abs": functions.signed("abs"),
    "bitwise_and": functions.bitwise(operator.and_),
    "bitwise_or": functions.bitwise(operator.or_),
    "bitwise_xor": functions.bitwise(operator.xor),
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
    "prod": functions.prod,
    "mean": torch.mean,
    "var": functions.spread(torch.var),
    "std": functions.spread(torch.std),
    "max": functions.with_places(torch.max),
    "min": functions.with_places(torch.min),
    "median": functions.with_places(torch.median),
    "amax": functions.over_all(torch.amax),
    "amin": functions.over_all(torch.amin),
    "argmax": torch.argmax,
    "argmin": torch.argmin,
    "any": torch.any,
    "all": torch.all,
    "count_nonzero": torch.count_nonzero,
    "norm": functions.norm,
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
    "reshape": lambda input, shape: torch.reshape(input, many(shape)),
    "view": lambda input, shape: torch.reshape(input, many(shape)),
    "transpose": torch.transpose,
    "permute": lambda input, dims: torch.permute(input, many(dims)),
    "movedim": torch.movedim,
    "flatten": torch.flatten,
    "unflatten": lambda input, dim, sizes: torch.unflatten(input, dim, many(sizes)),
    "squeeze": functions.squeeze,
    "unsqueeze": torch.unsqueeze,
    "expand": lambda input, size: input.expand(many(size)),
    "expand_as": lambda input, other: input.expand(other.shape),
    "diagonal": torch.diagonal,
    "size": functions.size,
    "split": lambda input, split_size_or_sections, dim: torch.split(input, split_size_or_sections, dim),
    "chunk": torch.chunk,
    "unbind": torch.unbind,
    "cat": torch.cat,
    "stack": torch.stack,
    "repeat": lambda input, repeats: input.repeat(many(repeats)),
    "repeat_interleave": lambda input, repeats, dim: torch.repeat_interleave(input, repeats, dim),
    "flip": lambda input, dims: torch.flip(input, many(dims)),
    "roll": lambda input, shifts, dims: torch.roll(input, shifts, () if dims is None else dims),
    "tril": torch.tril,
    "triu": torch.triu,
    "pad": lambda input, pad, value: F.pad(input, many(pad), value=value),
    "cast": lambda input, dtype: input.to(dtype),
}

_INDEXING: Final[Mapping[str, Function]] = {
    "getitem": functions.getitem,
    "setitem": functions.setitem,
    "gather": torch.gather,
    "scatter": functions.scatter,
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
    "layer_norm": functions.normalized(F.layer_norm),
    "rms_norm": functions.normalized(F.rms_norm),
    "normalize": F.normalize,
    "cosine_similarity": F.cosine_similarity,
    "cross_entropy": F.cross_entropy,
    "kl_div": F.kl_div,
    "mse_loss": F.mse_loss,
}

_CREATION: Final[Mapping[str, Function]] = {
    "arange": functions.arange,
    "linspace": torch.linspace,
    "zeros": functions.filled(torch.zeros),
    "ones": functions.filled(torch.ones),
    "full": lambda size, fill_value, **where: torch.full(many(size), fill_value, **where),
    "eye": lambda n, m, **where: torch.eye(n, n if m is None else m, **where),
    "rand": functions.drawn(torch.rand),
    "randn": functions.drawn(torch.randn),
    "randint": functions.randint,
    "randperm": functions.randperm,
}

_LIKE: Final[Mapping[str, Function]] = {
    "zeros_like": torch.zeros_like,
    "ones_like": torch.ones_like,
    "full_like": torch.full_like,
    "rand_like": functions.drawn_like(torch.rand),
    "randn_like": functions.drawn_like(torch.randn),
}

KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {
        name: Kernel(OPERATIONS[name], function, name in _CREATION)
        for family in (_ELEMENTWISE, _REDUCTIONS, _LAYOUT, _INDEXING, _ALGEBRA, _CREATION, _LIKE)
        for name, function in family.items()
    }
)
