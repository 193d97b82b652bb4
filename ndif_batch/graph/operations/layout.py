"""Operations that show the same elements in another shape or order of dimensions."""

from __future__ import annotations

from math import prod
from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.operations.costs import free
from ndif_batch.graph.operations.operation import Operation, pure
from ndif_batch.graph.shapes import Dims, Shape, axes, axis, broadcast, many

Tensor: TypeAlias = AbstractTensor


def fill_size(count: int, sizes: Shape) -> Shape:
    """``sizes`` with a single -1 replaced, so that they hold ``count`` elements."""
    if any(size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ShapeError(f"{list(sizes)} is no shape: one size may be -1, the others count from 0")
    known = prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if known == 0 or count % known:
            raise ShapeError(f"{count} elements do not fill the shape {list(sizes)}")
        return tuple(count // known if size == -1 else size for size in sizes)
    if known != count:
        raise ShapeError(f"{count} elements do not fill the shape {list(sizes)}")
    return sizes


def _reshape(input: Tensor, shape: Dims) -> Abstract:
    return Tensor(fill_size(input.size, many(shape)), input.dtype)


def _transpose(input: Tensor, dim0: int, dim1: int) -> Abstract:
    shape = list(input.shape)
    a, b = axis(dim0, len(shape)), axis(dim1, len(shape))
    if shape:
        shape[a], shape[b] = shape[b], shape[a]
    return Tensor(tuple(shape), input.dtype)


def _permute(input: Tensor, dims: Dims) -> Abstract:
    order = many(dims)
    if len(order) != len(input.shape):
        raise ShapeError(f"dims {order} must name each of the {len(input.shape)} dimensions once")
    return Tensor(tuple(input.shape[i] for i in axes(order, len(order))) if order else (), input.dtype)


def _movedim(input: Tensor, source: Dims, destination: Dims) -> Abstract:
    ndim = len(input.shape)
    moved, places = axes(source, ndim), axes(destination, ndim)
    if len(moved) != len(places):
        raise ShapeError(f"source {source} and destination {destination} differ in length")
    if not ndim:
        return input
    rest = iter(i for i in range(ndim) if i not in moved)
    order = [moved[places.index(i)] if i in places else next(rest) for i in range(ndim)]
    return Tensor(tuple(input.shape[i] for i in order), input.dtype)


def _flatten(input: Tensor, start_dim: int, end_dim: int) -> Abstract:
    start, end = axis(start_dim, len(input.shape)), axis(end_dim, len(input.shape))
    if start > end:
        raise ShapeError(f"start_dim {start_dim} comes after end_dim {end_dim}")
    merged = prod(input.shape[start : end + 1])
    return Tensor((*input.shape[:start], merged, *input.shape[end + 1 :]), input.dtype)


def _unflatten(input: Tensor, dim: int, sizes: Dims) -> Abstract:
    if not input.shape or sizes == ():
        raise ShapeError("unflatten needs a dimension, and sizes to give it")
    along = axis(dim, len(input.shape))
    parts = fill_size(input.shape[along], many(sizes))
    return Tensor((*input.shape[:along], *parts, *input.shape[along + 1 :]), input.dtype)


def _squeeze(input: Tensor, dim: Dims | None) -> Abstract:
    ndim = len(input.shape)
    candidates = range(ndim) if dim is None else axes(dim, ndim)
    kept = tuple(size for i, size in enumerate(input.shape) if size != 1 or i not in candidates)
    return Tensor(kept, input.dtype)


def _unsqueeze(input: Tensor, dim: int) -> Abstract:
    along = axis(dim, len(input.shape) + 1)
    return Tensor((*input.shape[:along], 1, *input.shape[along:]), input.dtype)


def _expand(input: Tensor, size: Dims) -> Abstract:
    wanted = many(size)
    lead = len(wanted) - len(input.shape)
    if lead < 0:
        raise ShapeError(f"{list(wanted)} has fewer dimensions than {list(input.shape)}")
    shape = []
    for have, want in zip((None,) * lead + input.shape, wanted, strict=True):
        length = have if want == -1 else want
        if length is None or length < 0 or have not in (None, 1, length):
            raise ShapeError(f"{list(input.shape)} does not expand to {list(wanted)}")
        shape.append(length)
    return Tensor(tuple(shape), input.dtype)


def _diagonal(input: Tensor, offset: int, dim1: int, dim2: int) -> Abstract:
    if len(input.shape) < 2:
        raise ShapeError("a diagonal needs at least 2 dimensions")
    a, b = axes((dim1, dim2), len(input.shape))
    length = min(input.shape[a] + min(offset, 0), input.shape[b] - max(offset, 0))
    rest = tuple(size for i, size in enumerate(input.shape) if i not in (a, b))
    return Tensor((*rest, max(0, length)), input.dtype)


def _size(input: Tensor, dim: int | None) -> Abstract:
    if dim is None:
        return input.shape
    if not input.shape:
        raise ShapeError("a value without dimensions has no size along one")
    return input.shape[axis(dim, len(input.shape))]


def _broadcast_like(input: Tensor, other: Tensor) -> Abstract:
    if broadcast(input.shape, other.shape) != other.shape:
        raise ShapeError(f"{list(input.shape)} does not expand to {list(other.shape)}")
    return Tensor(other.shape, input.dtype)


def _rows() -> tuple[Operation, ...]:
    return (
        pure("reshape(input: tensor, *shape: ints)", _reshape, "The same elements in another shape", price=free),
        pure("view(input: tensor, *shape: ints)", _reshape, "The same as `reshape`", price=free),
        pure("transpose(input: tensor, dim0: int, dim1: int)", _transpose, "Swaps two dimensions", price=free),
        pure("permute(input: tensor, *dims: ints)", _permute, "Dimensions in another order", price=free),
        pure("movedim(input: tensor, source: ints, destination: ints)", _movedim, "Moves dimensions", price=free),
        pure(
            "flatten(input: tensor, start_dim: int = 0, end_dim: int = -1)",
            _flatten,
            "Makes dimensions one",
            price=free,
        ),
        pure("unflatten(input: tensor, dim: int, sizes: ints)", _unflatten, "Makes one dimension several", price=free),
        pure("squeeze(input: tensor, dim: ints = None)", _squeeze, "Removes dimensions of length 1", price=free),
        pure("unsqueeze(input: tensor, dim: int)", _unsqueeze, "Adds a dimension of length 1", price=free),
        pure("expand(input: tensor, *size: ints)", _expand, "Repeats dimensions of length 1; -1 keeps", price=free),
        pure(
            "expand_as(input: tensor, other: tensor)", _broadcast_like, "`expand` to the shape of `other`", price=free
        ),
        pure(
            "diagonal(input: tensor, offset: int = 0, dim1: int = 0, dim2: int = 1)",
            _diagonal,
            "The diagonal of two dimensions, as the last dimension",
            price=free,
        ),
        pure("size(input: tensor, dim: int = None)", _size, "Lengths of the dimensions, as plain ints", price=free),
    )


LAYOUT = _rows()
