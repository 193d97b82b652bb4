"""Operations that make tensors: constants, ranges, random numbers."""

from __future__ import annotations

from math import ceil, isfinite
from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import DEFAULT_FLOAT, FLOATS, INTEGERS, number_dtype
from ndif_batch.graph.operations.costs import transcendental
from ndif_batch.graph.operations.operation import MAX_ELEMENTS, Operation, pure
from ndif_batch.graph.shapes import Dims, Shape, many

Tensor: TypeAlias = AbstractTensor


def _sizes(size: Dims) -> Shape:
    sizes = many(size)
    if any(length < 0 for length in sizes):
        raise ShapeError(f"{list(sizes)} is no shape: sizes count from 0")
    return sizes


def _filled(size: Dims, dtype: str | None) -> Abstract:
    return Tensor(_sizes(size), dtype or DEFAULT_FLOAT)


def _full(size: Dims, fill_value: float, dtype: str | None) -> Abstract:
    return Tensor(_sizes(size), _holds(dtype or number_dtype(fill_value), fill_value))


def _holds(dtype: str, value: float) -> str:
    if dtype in INTEGERS and not isfinite(value):
        raise ShapeError(f"{value} is no {dtype}")
    return dtype


def _like(input: Tensor, dtype: str | None) -> Abstract:
    return Tensor(input.shape, dtype or input.dtype)


def _full_like(input: Tensor, fill_value: float, dtype: str | None) -> Abstract:
    return Tensor(input.shape, _holds(dtype or input.dtype, fill_value))


def _arange(start: float, end: float | None, step: float, dtype: str | None) -> Abstract:
    first, last = (0, start) if end is None else (start, end)
    if step == 0 or not all(isfinite(number) for number in (first, last, step)):
        raise ShapeError("arange needs finite bounds and a step other than 0")
    if last != first and (last < first) != (step < 0):
        raise ShapeError(f"a step of {step} does not lead from {first} to {last}")
    whole = all(isinstance(number, int) for number in (first, last, step))
    length = -((first - last) // step) if whole else (last - first) / step
    if length > MAX_ELEMENTS:
        raise ShapeError(f"{length:,.0f} elements are more than {MAX_ELEMENTS:,}")
    return Tensor((ceil(length),), _ordered(dtype or ("int64" if whole else DEFAULT_FLOAT)))


def _linspace(start: float, end: float, steps: int, dtype: str | None) -> Abstract:
    if steps < 0:
        raise ShapeError("steps must not be negative")
    return Tensor((steps,), _ordered(dtype or DEFAULT_FLOAT))


def _ordered(dtype: str) -> str:
    if dtype == "bool":
        raise ShapeError("there is no range of bools")
    return dtype


def _eye(n: int, m: int | None, dtype: str | None) -> Abstract:
    return Tensor(_sizes((n, n if m is None else m)), dtype or DEFAULT_FLOAT)


def _random(size: Dims, dtype: str | None) -> Abstract:
    return Tensor(_sizes(size), _float(dtype or DEFAULT_FLOAT))


def _random_like(input: Tensor, dtype: str | None) -> Abstract:
    return Tensor(input.shape, _float(dtype or input.dtype))


def _float(dtype: str) -> str:
    if dtype not in FLOATS:
        raise ShapeError(f"random numbers are floating-point, not {dtype}")
    return dtype


def _randint(low: int, high: int, size: Dims) -> Abstract:
    if low >= high:
        raise ShapeError(f"there is no int from {low} to below {high}")
    return Tensor(_sizes(size), "int64")


def _randperm(n: int) -> Abstract:
    return Tensor(_sizes(n), "int64")


def _constants() -> tuple[Operation, ...]:
    dtype = "dtype: dtype = None"
    return (
        pure(
            f"arange(start: number, end: number = None, step: number = 1, *, {dtype})",
            _arange,
            "A range; one bound alone is the end",
        ),
        pure(f"linspace(start: number, end: number, steps: int, *, {dtype})", _linspace, "Numbers at equal distances"),
        pure(f"zeros(*size: ints, {dtype})", _filled, "Zeros"),
        pure(f"ones(*size: ints, {dtype})", _filled, "Ones"),
        pure(f"full(size: ints, fill_value: number, *, {dtype})", _full, "One number everywhere"),
        pure(f"eye(n: int, m: int = None, *, {dtype})", _eye, "Ones on the diagonal"),
        pure(f"zeros_like(input: tensor, *, {dtype})", _like, "Zeros in the shape of `input`"),
        pure(f"ones_like(input: tensor, *, {dtype})", _like, "Ones in the shape of `input`"),
        pure(
            f"full_like(input: tensor, fill_value: number, *, {dtype})",
            _full_like,
            "One number in the shape of `input`",
        ),
    )


def _noise() -> tuple[Operation, ...]:
    dtype = "dtype: dtype = None"
    rows = (
        (f"rand(*size: ints, {dtype})", _random, "Uniform numbers from 0 to below 1"),
        (f"randn(*size: ints, {dtype})", _random, "Normal numbers"),
        (f"rand_like(input: tensor, *, {dtype})", _random_like, "Uniform numbers in the shape of `input`"),
        (f"randn_like(input: tensor, *, {dtype})", _random_like, "Normal numbers in the shape of `input`"),
        ("randint(low: int, high: int, size: ints)", _randint, "Ints from `low` to below `high`"),
        ("randperm(n: int)", _randperm, "A random order of `n` positions"),
    )
    return tuple(pure(signature, rule, doc, price=transcendental, random=True) for signature, rule, doc in rows)


CREATION = (*_constants(), *_noise())
