"""Linear algebra, normalisation and losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import FLOATS, result_type
from ndif_batch.graph.einsum import einsum_cost, einsum_shape, parse_equation
from ndif_batch.graph.operations.costs import contraction, elementwise, per_input
from ndif_batch.graph.operations.operation import Operation, pure
from ndif_batch.graph.shapes import Dims, Shape, axis, broadcast, many, require_float, require_same_dtype

Tensor: TypeAlias = AbstractTensor

REDUCTION_NAMES = ("none", "mean", "sum")


def _matmul(input: Tensor, other: Tensor) -> Abstract:
    require_float("input", input)
    dtype = require_same_dtype(input=input, other=other)
    if not input.shape or not other.shape:
        raise ShapeError("matmul needs values with dimensions; use mul")
    a = input.shape if len(input.shape) > 1 else (1, *input.shape)
    b = other.shape if len(other.shape) > 1 else (*other.shape, 1)
    if a[-1] != b[-2]:
        raise ShapeError(f"{list(input.shape)} @ {list(other.shape)}: {a[-1]} columns meet {b[-2]} rows")
    rows = a[-2:-1] if len(input.shape) > 1 else ()
    columns = b[-1:] if len(other.shape) > 1 else ()
    return Tensor((*broadcast(a[:-2], b[:-2]), *rows, *columns), dtype)


def _bmm(input: Tensor, mat2: Tensor) -> Abstract:
    if len(input.shape) != 3 or len(mat2.shape) != 3 or input.shape[0] != mat2.shape[0]:
        raise ShapeError(f"bmm needs two batches of matrices, not {list(input.shape)} and {list(mat2.shape)}")
    return _matmul(input, mat2)


def _outer(input: Tensor, vec2: Tensor) -> Abstract:
    if len(input.shape) != 1 or len(vec2.shape) != 1:
        raise ShapeError(f"outer needs two vectors, not {list(input.shape)} and {list(vec2.shape)}")
    return Tensor(input.shape + vec2.shape, result_type(input, vec2))


def _dot(input: Tensor, tensor: Tensor) -> Abstract:
    if len(input.shape) != 1 or input.shape != tensor.shape:
        raise ShapeError(f"dot needs two vectors of one length, not {list(input.shape)} and {list(tensor.shape)}")
    return _matmul(input, tensor)


def _einsum(equation: str, operands: tuple[Tensor, ...]) -> Abstract:
    parsed = parse_equation(equation)
    shape = einsum_shape(parsed, tuple(operand.shape for operand in operands))
    require_float("operands", operands[0])
    return Tensor(shape, require_same_dtype(**{f"operand {i}": operand for i, operand in enumerate(operands)}))


def _einsum_price(bound: Mapping[str, Any], result: Abstract) -> int:
    return einsum_cost(parse_equation(bound["equation"]), tuple(operand.shape for operand in bound["operands"]))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Abstract:
    require_float("input", input)
    dtype = require_same_dtype(input=input, weight=weight, bias=bias)
    if len(weight.shape) != 2 or not input.shape or input.shape[-1] != weight.shape[1]:
        raise ShapeError(f"weight {list(weight.shape)} must be [out, in] for input {list(input.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"bias must have shape {list(weight.shape[:1])}, not {list(bias.shape)}")
    return Tensor((*input.shape[:-1], weight.shape[0]), dtype)


def _normalized(input: Tensor, normalized_shape: Dims, **affine: Tensor | None) -> Abstract:
    require_float("input", input)
    require_same_dtype(input=input, **affine)
    wanted = many(normalized_shape)
    if not wanted or input.shape[-len(wanted) :] != wanted:
        raise ShapeError(f"input {list(input.shape)} does not end in normalized_shape {list(wanted)}")
    for name, value in affine.items():
        if value is not None and value.shape != wanted:
            raise ShapeError(f"{name} must have shape {list(wanted)}, not {list(value.shape)}")
    return input


def _layer_norm(
    input: Tensor, normalized_shape: Dims, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Abstract:
    return _normalized(input, normalized_shape, weight=weight, bias=bias)


def _rms_norm(input: Tensor, normalized_shape: Dims, weight: Tensor | None, eps: float | None) -> Abstract:
    return _normalized(input, normalized_shape, weight=weight)


def _normalize(input: Tensor, p: float, dim: int, eps: float) -> Abstract:
    require_float("input", input)
    axis(dim, len(input.shape))
    return input


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int, eps: float) -> Abstract:
    require_float("x1", x1)
    require_float("x2", x2)
    shape = broadcast(x1.shape, x2.shape)
    along = axis(dim, len(shape))
    return Tensor(shape[:along] + shape[along + 1 :], result_type(x1, x2))


def _loss(shape: Shape, dtype: str, reduction: str, names: tuple[str, ...] = REDUCTION_NAMES) -> Abstract:
    if reduction not in names:
        raise ShapeError(f"reduction must be one of {', '.join(names)}, not {reduction!r}")
    return Tensor(shape if reduction == "none" else (), dtype)


def _cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, label_smoothing: float
) -> Abstract:
    require_float("input", input)
    require_same_dtype(input=input, weight=weight)
    if not input.shape:
        raise ShapeError("input needs a dimension of classes")
    along = 0 if len(input.shape) == 1 else 1
    classes, rest = input.shape[along], input.shape[:along] + input.shape[along + 1 :]
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"weight must have one element for each of {classes} classes")
    if not 0 <= label_smoothing <= 1:
        raise ShapeError(f"label_smoothing {label_smoothing} is outside 0 … 1")
    if target.dtype in FLOATS and target.shape == input.shape:
        require_same_dtype(input=input, target=target)
    elif target.dtype != "int64" or target.shape != rest:
        raise ShapeError(f"target must be int64{list(rest)} or {input.dtype}{list(input.shape)}")
    return _loss(rest, input.dtype, reduction)


def _kl_div(input: Tensor, target: Tensor, reduction: str, log_target: bool) -> Abstract:
    require_float("input", input)
    dtype = require_same_dtype(input=input, target=target)
    shape = broadcast(input.shape, target.shape)
    if reduction == "batchmean" and not input.shape:
        raise ShapeError("batchmean needs a dimension")
    return _loss(shape, dtype, reduction, (*REDUCTION_NAMES, "batchmean"))


def _mse_loss(input: Tensor, target: Tensor, reduction: str) -> Abstract:
    require_float("input", input)
    dtype = require_same_dtype(input=input, target=target)
    if input.shape != target.shape:
        raise ShapeError(f"shapes {list(input.shape)} and {list(target.shape)} differ")
    return _loss(input.shape, dtype, reduction)


def _products() -> tuple[Operation, ...]:
    return (
        pure("matmul(input: tensor, other: tensor)", _matmul, "`input @ other`", price=contraction),
        pure("bmm(input: tensor, mat2: tensor)", _bmm, "Products of matrices, batch by batch", price=contraction),
        pure("dot(input: tensor, tensor: tensor)", _dot, "Inner product of two vectors", price=contraction),
        pure("outer(input: tensor, vec2: tensor)", _outer, "Outer product of two vectors", price=elementwise),
        pure(
            "einsum(equation: str, *operands: tensors)", _einsum, "Sum of products by an equation", price=_einsum_price
        ),
        pure(
            "linear(input: tensor, weight: tensor, bias: tensor = None)",
            _linear,
            "`input @ weight.T + bias`",
            price=contraction,
        ),
    )


def _norms() -> tuple[Operation, ...]:
    return (
        pure(
            "layer_norm(input: tensor, normalized_shape: ints, weight: tensor = None, bias: tensor = None,"
            " eps: number = 1e-5)",
            _layer_norm,
            "Layer normalisation",
            price=per_input(8),
        ),
        pure(
            "rms_norm(input: tensor, normalized_shape: ints, weight: tensor = None, eps: number = None)",
            _rms_norm,
            "Root-mean-square normalisation",
            price=per_input(5),
        ),
        pure(
            "normalize(input: tensor, p: number = 2.0, dim: int = 1, eps: number = 1e-12)",
            _normalize,
            "The value divided by its norm along a dimension",
            price=per_input(4),
        ),
        pure(
            "cosine_similarity(x1: tensor, x2: tensor, dim: int = 1, eps: number = 1e-8)",
            _cosine_similarity,
            "Cosine of the angle between two values along a dimension",
            price=per_input(6),
        ),
    )


def _losses() -> tuple[Operation, ...]:
    return (
        pure(
            "cross_entropy(input: tensor, target: tensor, weight: tensor = None, *, ignore_index: int = -100,"
            " reduction: str = 'mean', label_smoothing: number = 0.0)",
            _cross_entropy,
            "Cross entropy of logits `[classes]` or `[batch, classes, …]` and class ids or probabilities",
            price=per_input(20),
        ),
        pure(
            "kl_div(input: tensor, target: tensor, *, reduction: str = 'mean', log_target: bool = False)",
            _kl_div,
            "Kullback-Leibler divergence of log-probabilities `input` from `target`",
            price=per_input(20),
        ),
        pure(
            "mse_loss(input: tensor, target: tensor, *, reduction: str = 'mean')",
            _mse_loss,
            "Squared error",
            price=per_input(3),
        ),
    )


ALGEBRA = (*_products(), *_norms(), *_losses())
