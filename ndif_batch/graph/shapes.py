"""Arithmetic of shapes: broadcasting, dimensions counted from either end, reductions."""

from __future__ import annotations

from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.dtypes import FLOATS

Shape: TypeAlias = tuple[int, ...]
Dims: TypeAlias = "int | tuple[int, ...]"


def many(sizes: Dims) -> Shape:
    """An int alone as a tuple of one."""
    return (sizes,) if isinstance(sizes, int) else sizes


def broadcast(*shapes: Shape) -> Shape:
    """The shape that all ``shapes`` broadcast to."""
    result = shapes[0]
    for shape in shapes[1:]:
        if shape != result and shape:
            result = _broadcast_two(result, shape)
    return result


def broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Whether a value of ``shape`` can fill a view of shape ``target``. Leading axes of length 1 do not count."""
    if shape == target:
        return True
    surplus = len(shape) - len(target)
    if surplus > 0:
        if any(size != 1 for size in shape[:surplus]):
            return False
        shape = shape[surplus:]
    tail = target[len(target) - len(shape) :]
    return all(have in (1, want) for have, want in zip(shape, tail, strict=True))


def axis(dim: int, ndim: int) -> int:
    """``dim`` counted from the front; a value without dimensions counts as having one."""
    count = ndim or 1
    if not -count <= dim < count:
        raise ShapeError(f"dim {dim} is outside the {ndim} dimensions of the value")
    return dim % count


def axes(dims: Dims, ndim: int) -> Shape:
    """``dims`` counted from the front, each once."""
    wrapped = (axis(dims, ndim),) if isinstance(dims, int) else tuple(axis(dim, ndim) for dim in dims)
    if len(set(wrapped)) < len(wrapped):
        raise ShapeError(f"dims {dims} name a dimension twice")
    return wrapped


def reduced(shape: Shape, dims: Dims | None, keepdim: bool) -> Shape:
    """``shape`` without ``dims`` (``None``: all of them), or with length 1 there."""
    if dims == ():
        raise ShapeError("dim names no dimension; leave it out to reduce all of them")
    gone = range(len(shape)) if dims is None else axes(dims, len(shape))
    if keepdim:
        return tuple(1 if i in gone else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in gone)


def with_size(shape: Shape, position: int, size: int) -> Shape:
    """``shape`` with another length at one axis."""
    return (*shape[:position], size, *shape[position + 1 :])


def require_float(name: str, value: AbstractTensor) -> None:
    """``ShapeError`` unless ``value`` holds floating-point numbers."""
    if value.dtype not in FLOATS:
        raise ShapeError(f"{name} must hold floating-point numbers, not {value.dtype}; cast it")


def require_same_dtype(**values: AbstractTensor | None) -> str:
    """The one dtype of all ``values`` that are given."""
    dtypes = {name: value.dtype for name, value in values.items() if value is not None}
    if len(set(dtypes.values())) > 1:
        raise ShapeError(f"dtypes differ: {', '.join(f'{name} {dtype}' for name, dtype in dtypes.items())}; cast one")
    return next(iter(dtypes.values()))


def _broadcast_two(a: Shape, b: Shape) -> Shape:
    if len(a) < len(b):
        a, b = b, a
    offset = len(a) - len(b)
    result = list(a)
    for i, size in enumerate(b, offset):
        if size != result[i] and size != 1:
            if result[i] != 1:
                raise ShapeError(f"shapes {list(a)} and {list(b)} do not broadcast")
            result[i] = size
    return tuple(result)
