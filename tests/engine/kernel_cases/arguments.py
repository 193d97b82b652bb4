"""Abstract arguments, and products of them that many operations share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, TypeAlias

from ndif_batch.graph.abstract import ITEM_BYTES, AbstractTensor

Case: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


DTYPES = tuple(ITEM_BYTES)
NUMBERS = (True, 2, 0, -1, 0.5)
SHAPES = ((), (1,), (3,), (2, 3), (0, 3), (2, 1, 3))


def f(*shape: int, dtype: str = "float32") -> AbstractTensor:
    return AbstractTensor(shape, dtype)


def i(*shape: int) -> AbstractTensor:
    return AbstractTensor(shape, "int64")


def b(*shape: int) -> AbstractTensor:
    return AbstractTensor(shape, "bool")


def case(*args: Any, **kwargs: Any) -> Case:
    return args, kwargs


def unary() -> Iterator[Case]:
    yield case("text")
    for dtype, shape in product(DTYPES, SHAPES):
        yield case(AbstractTensor(shape, dtype))


def tensor_pairs() -> Iterator[Case]:
    for one, other in product(DTYPES, repeat=2):
        for lengths in (((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())):
            yield case(AbstractTensor(lengths[0], one), AbstractTensor(lengths[1], other))
    for a, c in product(SHAPES, repeat=2):
        yield case(f(*a), f(*c))


def pairs() -> Iterator[Case]:
    yield from tensor_pairs()
    for dtype, number, shape in product(DTYPES, NUMBERS, ((3,), ())):
        yield case(AbstractTensor(shape, dtype), number)
        yield case(number, AbstractTensor(shape, dtype))


def number_pairs() -> Iterator[Case]:
    for one, other in product((*NUMBERS, 3, 2**62, 1e300), repeat=2):
        yield case(one, other)


def dims(*more: Case, optional: bool = True, keepdim: bool = True, several: bool = True) -> Iterator[Case]:
    yield from more
    choices: list[Any] = [0, -1, 1, 2, -3, 5]
    if optional:
        choices.append(None)
    if several:
        choices += [(0, 1), (-1, 0), (0, 0), (1, -1), (0, 7), (-1,)]
    for shape, dim in product(SHAPES, choices):
        yield case(f(*shape), dim)
        if keepdim:
            yield case(f(*shape), dim, True)
    for dtype in DTYPES:
        yield case(AbstractTensor((2, 3), dtype), -1)
        if optional:
            yield case(AbstractTensor((2, 3), dtype))


def dtypes_of(*args: Any) -> Iterator[Case]:
    for dtype in (*DTYPES, "complex64"):
        yield case(*args, dtype=dtype)
