"""Reductions and scans along dimensions: sums, moments, extremes, norms, order, softmax."""

from __future__ import annotations

from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import DEFAULT_FLOAT, FLOATS
from ndif_batch.graph.operations.costs import per_input, sorting
from ndif_batch.graph.operations.operation import Operation, Rule, pure
from ndif_batch.graph.shapes import Dims, axes, axis, reduced, require_float, with_size

Tensor: TypeAlias = AbstractTensor


def _require_elements(input: Tensor, dim: Dims | None) -> None:
    along = input.shape if dim is None else [input.shape[i] for i in axes(dim, len(input.shape)) if input.shape]
    if 0 in along:
        raise ShapeError("there is no element to choose from")


def _require_dim(dim: int | None, keepdim: bool) -> None:
    if dim is None and keepdim:
        raise ShapeError("keepdim needs dim")


def _total(input: Tensor, dim: Dims | None, keepdim: bool, dtype: str | None) -> Abstract:
    kept = input.dtype if input.dtype in FLOATS else "int64"
    return Tensor(reduced(input.shape, dim, keepdim), dtype or kept)


def _prod(input: Tensor, dim: int | None, keepdim: bool, dtype: str | None) -> Abstract:
    _require_dim(dim, keepdim)
    return _total(input, dim, keepdim, dtype)


def _mean(input: Tensor, dim: Dims | None, keepdim: bool, dtype: str | None) -> Abstract:
    result = Tensor(reduced(input.shape, dim, keepdim), dtype or input.dtype)
    require_float("the mean", result)
    return result


def _variance(input: Tensor, dim: Dims | None, correction: float, keepdim: bool, unbiased: bool | None) -> Abstract:
    require_float("input", input)
    return Tensor(reduced(input.shape, dim, keepdim), input.dtype)


def _extremes(input: Tensor, dim: Dims | None, keepdim: bool) -> Abstract:
    shape = reduced(input.shape, dim, keepdim)
    _require_elements(input, dim)
    return Tensor(shape, input.dtype)


def _extreme(input: Tensor, dim: int | None, keepdim: bool) -> Abstract:
    _require_dim(dim, keepdim)
    shape = reduced(input.shape, dim, keepdim)
    _require_elements(input, dim)
    best = Tensor(shape, input.dtype)
    return best if dim is None else (best, Tensor(shape, "int64"))


def _median(input: Tensor, dim: int | None, keepdim: bool) -> Abstract:
    if input.dtype == "bool":
        raise ShapeError("median does not take bools; cast them")
    return _extreme(input, dim, keepdim)


def _place(input: Tensor, dim: int | None, keepdim: bool) -> Abstract:
    if input.dtype == "bool":
        raise ShapeError("bools have no order; cast them")
    shape = reduced(input.shape, dim, keepdim)
    _require_elements(input, dim)
    return Tensor(shape, "int64")


def _truth(input: Tensor, dim: Dims | None, keepdim: bool) -> Abstract:
    return Tensor(reduced(input.shape, dim, keepdim), "uint8" if input.dtype == "uint8" else "bool")


def _count(input: Tensor, dim: Dims | None) -> Abstract:
    return Tensor(reduced(input.shape, dim, keepdim=False), "int64")


def _norm(input: Tensor, p: float, dim: Dims | None, keepdim: bool) -> Abstract:
    require_float("input", input)
    shape = reduced(input.shape, dim, keepdim)
    if p < 0 or p == float("inf"):
        _require_elements(input, dim)
    return Tensor(shape, input.dtype)


def _logsumexp(input: Tensor, dim: Dims, keepdim: bool) -> Abstract:
    return Tensor(reduced(input.shape, dim, keepdim), input.dtype if input.dtype in FLOATS else DEFAULT_FLOAT)


def _softmax(input: Tensor, dim: int, dtype: str | None) -> Abstract:
    axis(dim, len(input.shape))
    result = Tensor(input.shape, dtype or input.dtype)
    require_float("softmax", result)
    return result


def _cumulative(input: Tensor, dim: int, dtype: str | None) -> Abstract:
    axis(dim, len(input.shape))
    if dtype == "bool":
        raise ShapeError("bools cannot be accumulated")
    return Tensor(input.shape, dtype or (input.dtype if input.dtype in FLOATS else "int64"))


def _diff(input: Tensor, n: int, dim: int) -> Abstract:
    if not input.shape or n < 0:
        raise ShapeError("diff needs a value with dimensions and n of 0 or more")
    along = axis(dim, len(input.shape))
    return Tensor(with_size(input.shape, along, max(0, input.shape[along] - n)), input.dtype)


def _sort(input: Tensor, dim: int, descending: bool) -> Abstract:
    axis(dim, len(input.shape))
    return input, Tensor(input.shape, "int64")


def _argsort(input: Tensor, dim: int, descending: bool) -> Abstract:
    axis(dim, len(input.shape))
    return Tensor(input.shape, "int64")


def _topk(input: Tensor, k: int, dim: int, largest: bool, sorted: bool) -> Abstract:
    along = axis(dim, len(input.shape))
    length = input.shape[along] if input.shape else 1
    if input.dtype == "bool":
        raise ShapeError("bools have no order; cast them")
    if not 0 <= k <= length:
        raise ShapeError(f"k = {k} is outside 0 … {length}, the length of dim {dim}")
    shape = with_size(input.shape, along, k) if input.shape else ()
    return Tensor(shape, input.dtype), Tensor(shape, "int64")


def _quantile(input: Tensor, q: Tensor | float, dim: int | None, keepdim: bool, interpolation: str) -> Abstract:
    if input.dtype not in ("float32", "float64"):
        raise ShapeError(f"quantile takes float32 and float64, not {input.dtype}")
    if interpolation not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ShapeError(f"there is no interpolation {interpolation!r}")
    shape = reduced(input.shape, dim, keepdim)
    _require_elements(input, None)
    if not isinstance(q, AbstractTensor):
        if not 0 <= q <= 1:
            raise ShapeError(f"q = {q} is outside 0 … 1")
        return Tensor(shape, input.dtype)
    if len(q.shape) > 1 or q.dtype != input.dtype:
        raise ShapeError(f"q must have at most one dimension and dtype {input.dtype}")
    return Tensor((*q.shape, *shape), input.dtype)


def _sums() -> tuple[Operation, ...]:
    total = "(input: tensor, dim: ints = None, keepdim: bool = False, *, dtype: dtype = None)"
    moment = (
        "(input: tensor, dim: ints = None, *, correction: number = 1, keepdim: bool = False, unbiased: bool = None)"
    )
    one = "(input: tensor, dim: int = None, keepdim: bool = False)"
    many = "(input: tensor, dim: ints = None, keepdim: bool = False)"
    scan = "(input: tensor, dim: int, *, dtype: dtype = None)"
    once, twice = per_input(), per_input(4)
    rows: list[tuple[str, Rule, str]] = [
        (f"sum{total}", _total, "Sum; integers and bools give int64"),
        (
            "prod(input: tensor, dim: int = None, keepdim: bool = False, *, dtype: dtype = None)",
            _prod,
            "Product; integers and bools give int64",
        ),
        (f"mean{total}", _mean, "Mean"),
        (f"max{one}", _extreme, "Greatest value; with `dim` a tuple of values and their places"),
        (f"min{one}", _extreme, "Smallest value; with `dim` a tuple of values and their places"),
        (f"median{one}", _median, "Lower median; with `dim` a tuple of values and their places"),
        (f"amax{many}", _extremes, "Greatest value"),
        (f"amin{many}", _extremes, "Smallest value"),
        (f"argmax{one}", _place, "Place of the greatest value"),
        (f"argmin{one}", _place, "Place of the smallest value"),
        (f"any{many}", _truth, "Whether one element is not zero"),
        (f"all{many}", _truth, "Whether no element is zero"),
        ("count_nonzero(input: tensor, dim: ints = None)", _count, "Number of elements that are not zero"),
        (f"cumsum{scan}", _cumulative, "Running sum"),
        (f"cumprod{scan}", _cumulative, "Running product"),
    ]
    return (
        *(pure(signature, rule, doc, price=once) for signature, rule, doc in rows),
        pure(f"var{moment}", _variance, "Variance; `unbiased=False` means `correction=0`", price=twice),
        pure(f"std{moment}", _variance, "Standard deviation; `unbiased=False` means `correction=0`", price=twice),
        pure(
            "norm(input: tensor, p: number = 2, dim: ints = None, keepdim: bool = False)",
            _norm,
            "Vector norm of order `p` (`torch.linalg.vector_norm`)",
            price=per_input(2),
        ),
        pure("diff(input: tensor, n: int = 1, dim: int = -1)", _diff, "Differences of neighbours, `n` times"),
    )


def _orders() -> tuple[Operation, ...]:
    softmax = "(input: tensor, dim: int, *, dtype: dtype = None)"
    order = "(input: tensor, dim: int = -1, descending: bool = False)"
    heavy = per_input(20)
    return (
        pure(f"softmax{softmax}", _softmax, "Softmax", price=heavy),
        pure(f"log_softmax{softmax}", _softmax, "Logarithm of the softmax", price=heavy),
        pure(
            "logsumexp(input: tensor, dim: ints, keepdim: bool = False)",
            _logsumexp,
            "`log(sum(exp(input)))`",
            price=heavy,
        ),
        pure(f"sort{order}", _sort, "Sorted values and their places; equal values keep their order", price=sorting),
        pure(f"argsort{order}", _argsort, "Places of the sorted values; equal values keep their order", price=sorting),
        pure(
            "topk(input: tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True)",
            _topk,
            "The `k` greatest values and their places",
            price=sorting,
        ),
        pure(
            "quantile(input: tensor, q: operand, dim: int = None, keepdim: bool = False,"
            " *, interpolation: str = 'linear')",
            _quantile,
            "Quantiles",
            price=sorting,
        ),
    )


REDUCTIONS = (*_sums(), *_orders())
