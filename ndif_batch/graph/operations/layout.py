"""Operations that rearrange elements: reshape, order of dimensions, joining, splitting, copies, dtype."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import promote
from ndif_batch.graph.operations.costs import elementwise, free
from ndif_batch.graph.operations.operation import Operation, pure
from ndif_batch.graph.shapes import Dims, Shape, axes, axis, broadcast, with_size

Tensor: TypeAlias = AbstractTensor

MAX_PIECES = 4096


def _many(value: Dims) -> Shape:
    return (value,) if isinstance(value, int) else value


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
    return Tensor(fill_size(input.size, _many(shape)), input.dtype)


def _transpose(input: Tensor, dim0: int, dim1: int) -> Abstract:
    shape = list(input.shape)
    a, b = axis(dim0, len(shape)), axis(dim1, len(shape))
    if shape:
        shape[a], shape[b] = shape[b], shape[a]
    return Tensor(tuple(shape), input.dtype)


def _permute(input: Tensor, dims: Dims) -> Abstract:
    order = _many(dims)
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
    parts = fill_size(input.shape[along], _many(sizes))
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
    wanted = _many(size)
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


def _repeat(input: Tensor, repeats: Dims) -> Abstract:
    times = _many(repeats)
    lead = len(times) - len(input.shape)
    if lead < 0 or any(count < 0 for count in times):
        raise ShapeError(f"repeats {times} must count from 0, one for each of the {len(input.shape)} dimensions")
    padded = (1,) * lead + input.shape
    return Tensor(tuple(size * count for size, count in zip(padded, times, strict=True)), input.dtype)


def _repeat_interleave(input: Tensor, repeats: int, dim: int | None) -> Abstract:
    if repeats < 0:
        raise ShapeError(f"repeats {repeats} is negative")
    if dim is None:
        return Tensor((input.size * repeats,), input.dtype)
    if not input.shape:
        raise ShapeError("a value without dimensions has no dim to repeat along")
    along = axis(dim, len(input.shape))
    return Tensor(with_size(input.shape, along, input.shape[along] * repeats), input.dtype)


def _joined_dtype(tensors: tuple[Tensor, ...]) -> str:
    if not tensors:
        raise ShapeError("there is no tensor to join")
    return tuple(accumulate((tensor.dtype for tensor in tensors), promote))[-1]


def _cat(tensors: tuple[Tensor, ...], dim: int) -> Abstract:
    dtype = _joined_dtype(tensors)
    if any(not tensor.shape for tensor in tensors):
        raise ShapeError("tensors without dimensions cannot be joined by cat; use stack")
    first = tensors[0].shape
    along = axis(dim, len(first))
    for tensor in tensors[1:]:
        if len(tensor.shape) != len(first) or with_size(tensor.shape, along, 0) != with_size(first, along, 0):
            raise ShapeError(f"shapes {list(first)} and {list(tensor.shape)} differ in more than dim {dim}")
    return Tensor(with_size(first, along, sum(tensor.shape[along] for tensor in tensors)), dtype)


def _stack(tensors: tuple[Tensor, ...], dim: int) -> Abstract:
    dtype = _joined_dtype(tensors)
    first = tensors[0].shape
    for tensor in tensors[1:]:
        if tensor.shape != first:
            raise ShapeError(f"shapes {list(first)} and {list(tensor.shape)} differ; stack needs equal ones")
    along = axis(dim, len(first) + 1)
    return Tensor((*first[:along], len(tensors), *first[along:]), dtype)


def _pieces(input: Tensor, along: int, sizes: list[int]) -> Abstract:
    return tuple(Tensor(with_size(input.shape, along, size), input.dtype) for size in sizes)


def _check_pieces(count: int) -> None:
    if count > MAX_PIECES:
        raise ShapeError(f"{count:,} pieces are more than {MAX_PIECES:,}")


def _dimension(input: Tensor, dim: int) -> tuple[int, int]:
    if not input.shape:
        raise ShapeError("a value without dimensions cannot be split")
    along = axis(dim, len(input.shape))
    return along, input.shape[along]


def _by_size(input: Tensor, along: int, length: int, size: int) -> Abstract:
    _check_pieces(-(-length // size))
    return _pieces(input, along, [min(size, length - start) for start in range(0, length, size)] or [0])


def _split(input: Tensor, split_size_or_sections: Dims, dim: int) -> Abstract:
    along, length = _dimension(input, dim)
    if isinstance(split_size_or_sections, int):
        if split_size_or_sections < 0 or (split_size_or_sections == 0 and length):
            raise ShapeError(f"pieces of {split_size_or_sections} cannot be cut")
        return _by_size(input, along, length, split_size_or_sections or 1)
    sizes = list(split_size_or_sections)
    if sum(sizes) != length or any(size < 0 for size in sizes):
        raise ShapeError(f"sections {sizes} do not add up to {length}, the length of dim {dim}")
    _check_pieces(len(sizes))
    return _pieces(input, along, sizes)


def _chunk(input: Tensor, chunks: int, dim: int) -> Abstract:
    along, length = _dimension(input, dim)
    if chunks < 1:
        raise ShapeError(f"{chunks} chunks cannot be cut")
    if length == 0:
        _check_pieces(chunks)
        return _pieces(input, along, [0] * chunks)
    return _by_size(input, along, length, -(-length // chunks))


def _unbind(input: Tensor, dim: int) -> Abstract:
    along, length = _dimension(input, dim)
    _check_pieces(length)
    return (Tensor((*input.shape[:along], *input.shape[along + 1 :]), input.dtype),) * length


def _triangle(input: Tensor, diagonal: int) -> Abstract:
    if len(input.shape) < 2:
        raise ShapeError("a triangle needs at least 2 dimensions")
    return input


def _flip(input: Tensor, dims: Dims) -> Abstract:
    axes(dims, len(input.shape))
    return input


def _roll(input: Tensor, shifts: Dims, dims: Dims | None) -> Abstract:
    if dims is None:
        if len(_many(shifts)) != 1:
            raise ShapeError("several shifts need as many dims")
        return input
    if not input.shape:
        raise ShapeError("a value without dimensions has no dim to roll along")
    for dim in _many(dims):
        axis(dim, len(input.shape))
    if len(_many(shifts)) != len(_many(dims)) or dims == ():
        raise ShapeError(f"shifts {shifts} and dims {dims} differ in length")
    return input


def _diagonal(input: Tensor, offset: int, dim1: int, dim2: int) -> Abstract:
    if len(input.shape) < 2:
        raise ShapeError("a diagonal needs at least 2 dimensions")
    a, b = axes((dim1, dim2), len(input.shape))
    length = min(input.shape[a] + min(offset, 0), input.shape[b] - max(offset, 0))
    rest = tuple(size for i, size in enumerate(input.shape) if i not in (a, b))
    return Tensor((*rest, max(0, length)), input.dtype)


def _pad(input: Tensor, pad: Dims, value: float) -> Abstract:
    amounts = _many(pad)
    if len(amounts) % 2 or len(amounts) > 2 * len(input.shape):
        raise ShapeError(f"pad {amounts} must be pairs (before, after), from the last dimension on")
    shape = list(input.shape)
    for i in range(len(amounts) // 2):
        shape[-1 - i] += amounts[2 * i] + amounts[2 * i + 1]
    if any(size < 0 for size in shape):
        raise ShapeError(f"pad {amounts} takes more than {list(input.shape)} has")
    return Tensor(tuple(shape), input.dtype)


def _cast(input: Tensor, dtype: str) -> Abstract:
    return Tensor(input.shape, dtype)


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


def _views() -> tuple[Operation, ...]:
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


def _cuts() -> tuple[Operation, ...]:
    return (
        pure(
            "split(input: tensor, split_size_or_sections: ints, dim: int = 0)", _split, "Pieces of a size", price=free
        ),
        pure("chunk(input: tensor, chunks: int, dim: int = 0)", _chunk, "A number of pieces", price=free),
        pure("unbind(input: tensor, dim: int = 0)", _unbind, "The slices along a dimension", price=free),
        pure("cat(tensors: tensors, dim: int = 0)", _cat, "Joins along a dimension"),
        pure("stack(tensors: tensors, dim: int = 0)", _stack, "Joins along a new dimension"),
        pure("repeat(input: tensor, *repeats: ints)", _repeat, "Copies side by side"),
        pure(
            "repeat_interleave(input: tensor, repeats: int, dim: int = None)",
            _repeat_interleave,
            "Copies of each element side by side",
        ),
        pure("flip(input: tensor, *dims: ints)", _flip, "Reverses dimensions"),
        pure("roll(input: tensor, shifts: ints, dims: ints = None)", _roll, "Shifts elements around"),
        pure("tril(input: tensor, diagonal: int = 0)", _triangle, "Zeros above a diagonal"),
        pure("triu(input: tensor, diagonal: int = 0)", _triangle, "Zeros below a diagonal"),
        pure("pad(input: tensor, pad: ints, value: number = 0)", _pad, "Adds constants, last dimension first"),
        pure("cast(input: tensor, dtype: dtype)", _cast, "The value in another dtype", price=elementwise),
    )


LAYOUT = (*_views(), *_cuts())
