"""Operations that pick or replace elements by position or mask."""

from __future__ import annotations

from math import isfinite
from typing import Any, TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import FLOATS, Operand
from ndif_batch.graph.indexes import select
from ndif_batch.graph.operations.costs import elementwise
from ndif_batch.graph.operations.operation import Operation, pure
from ndif_batch.graph.shapes import axis, broadcast, broadcasts_to, require_same_dtype, with_size
from ndif_batch.graph.signatures import describe

Tensor: TypeAlias = AbstractTensor

INDEX_DTYPES = ("int64", "int32")


def get(input: Abstract, index: Any) -> Abstract:
    """The abstract ``input[index]`` of a tensor, or of a tuple with an int."""
    if isinstance(input, tuple):
        return input[_item(input, index)]
    if not isinstance(input, AbstractTensor):
        raise ShapeError(f"{describe(input)} has no items")
    selection = select(input.shape, index)
    if selection.masked is not None:
        raise ShapeError(
            "how much a mask selects is only known when it runs", hint="use where, masked_fill or a product instead"
        )
    return Tensor(selection.shape, input.dtype)


def put(input: Abstract, index: Any, value: Abstract) -> Abstract:
    """The abstract ``input`` after ``input[index] = value``; a tuple takes an int (and then more, for the item)."""
    if isinstance(input, tuple):
        position = _item(input, index[0] if isinstance(index, tuple) and index else index)
        deeper = index[1:] if isinstance(index, tuple) else ()
        item = put(input[position], deeper, value) if deeper else value
        return (*input[:position], item, *input[position + 1 :])
    if not isinstance(input, AbstractTensor):
        raise ShapeError(f"{describe(input)} has no items")
    selection = select(input.shape, index)
    check_fits(value, Tensor(selection.shape, input.dtype), selection.masked is not None)
    return input


def check_fits(value: Abstract, view: Tensor, masked: bool = False) -> None:
    """``ShapeError`` unless ``value`` can fill ``view``. Tensors are cast to its dtype, as torch's assignment does."""
    if isinstance(value, AbstractTensor):
        if not broadcasts_to(value.shape, view.shape):
            goal = "what the mask selects" if masked else f"a view of shape {list(view.shape)}"
            raise ShapeError(f"a value of shape {list(value.shape)} does not fit {goal}")
    elif not isinstance(value, bool | int | float):
        raise ShapeError(f"{describe(value)} cannot be written to a tensor")
    elif view.dtype not in FLOATS and view.dtype != "bool" and not isfinite(value):
        raise ShapeError(f"{value} is no {view.dtype}")


def _item(input: tuple[Abstract, ...], index: Any) -> int:
    position = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if type(position) is not int:
        raise ShapeError(f"a tuple of {len(input)} takes an int as its index, not {describe(index)}")
    if not -len(input) <= position < len(input):
        raise ShapeError(f"item {position} is outside a tuple of {len(input)}")
    return position % len(input)


def _along(input: Tensor, dim: int, index: Tensor, dtypes: tuple[str, ...] = ("int64",)) -> int:
    if index.dtype not in dtypes:
        raise ShapeError(f"index must be {' or '.join(dtypes)}, not {index.dtype}")
    along = axis(dim, len(input.shape))
    if index.size and input.shape and not input.shape[along]:
        raise ShapeError(f"dim {dim} of {list(input.shape)} has no positions")
    return along


def _gather(input: Tensor, dim: int, index: Tensor) -> Abstract:
    along = _along(input, dim, index)
    _check_within("index", index, "input", input, along)
    return Tensor(index.shape, input.dtype)


def _check_within(inner: str, small: Tensor, outer: str, large: Tensor, free: int | None) -> None:
    if (len(small.shape) or 1) != (len(large.shape) or 1):
        raise ShapeError(f"{inner} has {len(small.shape)} dimensions, {outer} {len(large.shape)}")
    for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=False)):
        if i != free and a > b:
            raise ShapeError(f"{inner} {list(small.shape)} is longer than {outer} {list(large.shape)} in dim {i}")


def _scatter(input: Tensor, dim: int, index: Tensor, src: Operand) -> Abstract:
    along = _along(input, dim, index)
    _check_within("index", index, "input", input, along)
    if isinstance(src, AbstractTensor):
        require_same_dtype(input=input, src=src)
        _check_within("index", index, "src", src, None)
    else:
        check_fits(src, input)
    return input


def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Abstract:
    return _scatter(input, dim, index, src)


def _index_select(input: Tensor, dim: int, index: Tensor) -> Abstract:
    along = _along(input, dim, index, INDEX_DTYPES)
    if len(index.shape) > 1:
        raise ShapeError(f"index must have one dimension, not {len(index.shape)}")
    if not input.shape:
        raise ShapeError("a value without dimensions has no positions")
    return Tensor(with_size(input.shape, along, index.size), input.dtype)


def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Abstract:
    along = _along(input, dim, index, INDEX_DTYPES)
    require_same_dtype(input=input, source=source)
    if not input.shape or len(index.shape) != 1:
        raise ShapeError("index_add needs a value with dimensions and an index with one")
    if source.shape != with_size(input.shape, along, index.size):
        raise ShapeError(f"source {list(source.shape)} does not fit {index.size} positions of {list(input.shape)}")
    return input


def _take_along_dim(input: Tensor, indices: Tensor, dim: int | None) -> Abstract:
    along = _along(input, 0 if dim is None else dim, indices)
    if dim is None:
        return Tensor((indices.size,), input.dtype)
    if len(input.shape) != len(indices.shape) or not input.shape:
        raise ShapeError(f"indices has {len(indices.shape)} dimensions, input {len(input.shape)}")
    shape = broadcast(with_size(input.shape, along, 1), with_size(indices.shape, along, 1))
    return Tensor(with_size(shape, along, indices.shape[along]), input.dtype)


def _masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Abstract:
    if mask.dtype != "bool":
        raise ShapeError(f"mask must be bool, not {mask.dtype}")
    shape = broadcast(input.shape, mask.shape)
    if isinstance(value, AbstractTensor) and value.shape:
        raise ShapeError("value must have no dimensions; use where")
    check_fits(value, input)
    return Tensor(shape, input.dtype)


def _embedding(input: Tensor, weight: Tensor) -> Abstract:
    if input.dtype not in INDEX_DTYPES:
        raise ShapeError(f"input must hold int64 or int32 ids, not {input.dtype}")
    if len(weight.shape) != 2:
        raise ShapeError(f"weight must have 2 dimensions, not {len(weight.shape)}")
    if input.size and not weight.shape[0]:
        raise ShapeError("weight has no rows")
    return Tensor((*input.shape, weight.shape[1]), weight.dtype)


def _one_hot(input: Tensor, num_classes: int) -> Abstract:
    if input.dtype != "int64":
        raise ShapeError(f"input must be int64, not {input.dtype}")
    if num_classes < 1:
        raise ShapeError("num_classes must be positive")
    return Tensor((*input.shape, num_classes), "int64")


def _rows() -> tuple[Operation, ...]:
    scattered = "(input: tensor, dim: int, index: tensor, src: "
    return (
        pure("getitem(input: value, index: index)", get, "`input[index]`; an int picks an item of a tuple"),
        pure(
            "setitem(input: value, index: index, value: value)",
            put,
            "A copy of `input` after `input[index] = value`",
            price=elementwise,
        ),
        pure("gather(input: tensor, dim: int, index: tensor)", _gather, "Elements at positions along a dimension"),
        pure(f"scatter{scattered}operand)", _scatter, "A copy with elements replaced at positions along a dimension"),
        pure(f"scatter_add{scattered}tensor)", _scatter_add, "A copy with elements added to at positions"),
        pure("index_select(input: tensor, dim: int, index: tensor)", _index_select, "Slices at positions"),
        pure(
            "index_add(input: tensor, dim: int, index: tensor, source: tensor)",
            _index_add,
            "A copy with slices added to at positions",
        ),
        pure(
            "take_along_dim(input: tensor, indices: tensor, dim: int = None)",
            _take_along_dim,
            "Elements at positions, broadcast; for `argmax` and `sort`",
        ),
        pure("masked_fill(input: tensor, mask: tensor, value: operand)", _masked_fill, "`value` where `mask` is true"),
        pure("embedding(input: tensor, weight: tensor)", _embedding, "Rows of `weight`"),
        pure("one_hot(input: tensor, num_classes: int)", _one_hot, "Ones at the positions that `input` holds"),
    )


INDEXING = _rows()
