"""Shape rules against torch on random arguments: promotion, broadcasting, indices, reshapes, equations."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.kernels import DTYPES, KERNELS
from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import ITEM_BYTES, AbstractTensor
from ndif_batch.graph.dtypes import promote, result_type
from ndif_batch.graph.einsum import parse_equation
from ndif_batch.graph.indexes import select
from ndif_batch.graph.nodes import SliceArg
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.operations.layout import fill_size
from ndif_batch.graph.shapes import broadcast

FEW = settings(max_examples=150, deadline=None)

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
small = st.integers(-5, 5)
bounds = st.none() | small
slices = st.builds(SliceArg, bounds, bounds, st.none() | st.integers(-1, 3))
positions = st.lists(small, max_size=3).map(tuple)
index_tensors = st.sampled_from([(), (2,), (1,), (2, 1), (0,)]).map(lambda shape: AbstractTensor(shape, "int64"))
items = st.one_of(small, slices, st.none(), st.just(...), positions, index_tensors)
indices = st.lists(items, max_size=5).map(tuple) | small | slices | index_tensors
operands = st.one_of(
    st.builds(AbstractTensor, st.sampled_from([(), (3,)]), st.sampled_from(sorted(ITEM_BYTES))),
    st.sampled_from([True, 2, 0.5]),
)


def filled(value: AbstractTensor) -> torch.Tensor:
    return torch.zeros(value.shape, dtype=DTYPES[value.dtype])


def python_index(index: Any) -> Any:
    if isinstance(index, AbstractTensor):
        return filled(index)
    if isinstance(index, SliceArg):
        return slice(index.start, index.stop, index.step)
    return tuple(python_index(item) for item in index) if isinstance(index, tuple) else index


def is_stricter(shape: tuple[int, ...], index: Any) -> bool:
    """The table allows one ``...`` and looks at the positions in a list even if nothing is selected; torch does not."""
    selected = KERNELS["getitem"](torch.zeros(shape), python_index(index))
    dots = sum(isinstance(item, EllipsisType) for item in index) if isinstance(index, tuple) else 0
    return dots > 1 or not selected.numel()


def abstract_or_none(name: str, *args: Any) -> Any:
    try:
        return OPERATIONS[name].shape(OPERATIONS[name].bind(args))
    except ShapeError:
        return None


@FEW
@given(a=st.sampled_from(sorted(ITEM_BYTES)), b=st.sampled_from(sorted(ITEM_BYTES)))
def test_promotion_is_torchs(a: str, b: str) -> None:
    assert DTYPES[promote(a, b)] == torch.promote_types(DTYPES[a], DTYPES[b])


@FEW
@given(a=operands, b=operands)
def test_result_type_is_torchs(a: Any, b: Any) -> None:
    real = [filled(value) if isinstance(value, AbstractTensor) else value for value in (a, b)]
    assert DTYPES[result_type(a, b)] == torch.result_type(*real)


@FEW
@given(a=shapes, b=shapes, c=shapes)
def test_broadcasting_is_torchs(a: Any, b: Any, c: Any) -> None:
    try:
        expected = np.broadcast_shapes(a, b, c)
    except ValueError:
        with pytest.raises(ShapeError, match="do not broadcast"):
            broadcast(a, b, c)
    else:
        assert broadcast(a, b, c) == expected


@FEW
@given(shape=shapes, index=indices)
def test_getitem_has_the_shape_that_torch_selects(shape: tuple[int, ...], index: Any) -> None:
    found = abstract_or_none("getitem", AbstractTensor(shape, "float32"), index)
    try:
        expected = tuple(KERNELS["getitem"](torch.zeros(shape), python_index(index)).shape)
    except (IndexError, ValueError, RuntimeError):
        assert found is None
    else:
        assert found == AbstractTensor(expected, "float32") or (found is None and is_stricter(shape, index))


@FEW
@given(shape=shapes, index=indices)
def test_origin_names_the_axis_that_a_selected_axis_runs_along(shape: tuple[int, ...], index: Any) -> None:
    try:
        selection = select(shape, index)
    except ShapeError:
        return
    strides = [10**axis for axis in range(len(shape))]
    places = torch.zeros(shape, dtype=torch.int64)
    for axis, stride in enumerate(strides):
        along = torch.arange(shape[axis]) * stride
        places = places + along.reshape([-1] + [1] * (len(shape) - 1 - axis))
    selected = KERNELS["getitem"](places, python_index(index))
    for axis, origin in enumerate(selection.origin):
        if origin is not None and selected.shape[axis] > 1 and selected.numel():
            (step,) = (selected.select(axis, 1) - selected.select(axis, 0)).unique().tolist()
            assert step in (strides[origin], 2 * strides[origin], 3 * strides[origin])


@FEW
@given(shape=shapes, index=indices, value=shapes)
def test_setitem_takes_what_torch_takes(shape: tuple[int, ...], index: Any, value: tuple[int, ...]) -> None:
    found = abstract_or_none("setitem", AbstractTensor(shape, "float32"), index, AbstractTensor(value, "float64"))
    try:
        KERNELS["setitem"](torch.zeros(shape), python_index(index), torch.ones(value, dtype=torch.float64))
    except (IndexError, ValueError, RuntimeError):
        assert found is None
    else:
        assert found == AbstractTensor(shape, "float32") or (found is None and is_stricter(shape, index))


@FEW
@given(shape=shapes, to=st.lists(st.integers(-1, 8), max_size=4).map(tuple))
def test_reshape_fills_what_torch_fills(shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    value = torch.zeros(shape)
    try:
        expected = tuple(value.reshape(to).shape)
    except RuntimeError:
        with pytest.raises(ShapeError):
            fill_size(value.numel(), to)
    else:
        assert fill_size(value.numel(), to) == expected


terms = st.lists(st.sampled_from(["a", "b", "B", "..."]), max_size=3).map("".join)
equations = st.builds(
    lambda inputs, output: ",".join(inputs) + ("" if output is None else f"->{output}"),
    st.lists(terms, min_size=1, max_size=3),
    st.none() | terms,
)


@settings(max_examples=300, deadline=None)
@given(
    equation=equations, operands=st.lists(st.lists(st.integers(1, 2), max_size=4).map(tuple), min_size=1, max_size=3)
)
def test_einsum_has_the_shape_that_torch_gives(equation: str, operands: list[tuple[int, ...]]) -> None:
    rule = OPERATIONS["einsum"]
    bound = {"equation": equation, "operands": tuple(AbstractTensor(shape, "float32") for shape in operands)}
    try:
        expected = tuple(torch.einsum(equation, *(torch.ones(shape) for shape in operands)).shape)
    except (RuntimeError, ValueError):  # opt_einsum, which torch uses where it is installed, raises the latter
        with pytest.raises(ShapeError):
            rule.shape(bound)
    else:
        assert rule.shape(bound) == AbstractTensor(expected, "float32")


@FEW
@given(text=st.text(max_size=20))
def test_any_text_is_an_equation_or_refused(text: str) -> None:
    try:
        parsed = parse_equation(text)
    except ShapeError:
        return
    assert set("".join(parsed.inputs) + parsed.output) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.")
