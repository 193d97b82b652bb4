"""Operations that cut, join, repeat and move elements, and the cast to another dtype."""

from __future__ import annotations

from itertools import accumulate
from typing import TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import promote
from ndif_batch.graph.operations.costs import free
from ndif_batch.graph.operations.operation import Operation, pure
from ndif_batch.graph.shapes import Dims, axes, axis, many, with_size

Tensor: TypeAlias = AbstractTensor

MAX_PIECES = 4096


def _repeat(input: Tensor, repeats: Dims) -> Abstract:
    times = many(repeats)
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
        if len(many(shifts)) != 1:
            raise ShapeError("several shifts need as many dims")
        return input
    if not input.shape:
        raise ShapeError("a value without dimensions has no dim to roll along")
    for dim in many(dims):
        axis(dim, len(input.shape))
    if len(many(shifts)) != len(many(dims)) or dims == ():
        raise ShapeError(f"shifts {shifts} and dims {dims} differ in length")
    return input


def _pad(input: Tensor, pad: Dims, value: float) -> Abstract:
    amounts = many(pad)
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


def _rows() -> tuple[Operation, ...]:
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
        pure("cast(input: tensor, dtype: dtype)", _cast, "The value in another dtype"),
    )


JOINING = _rows()
