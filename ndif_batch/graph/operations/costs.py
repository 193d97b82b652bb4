"""Cost rules: FLOPs of an operation from the shapes of its arguments and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ndif_batch.graph.abstract import Abstract, AbstractTensor

TRANSCENDENTAL = 8


def elements(value: object) -> int:
    """Number of elements in a value, tuples included."""
    if isinstance(value, AbstractTensor):
        return value.size
    return sum(elements(item) for item in value) if isinstance(value, tuple) else 1


def elementwise(bound: Mapping[str, Any], result: Abstract) -> int:
    """One operation for each element of the result."""
    return elements(result)


def transcendental(bound: Mapping[str, Any], result: Abstract) -> int:
    """One transcendental function for each element of the result."""
    return TRANSCENDENTAL * elements(result)


def free(bound: Mapping[str, Any], result: Abstract) -> int:
    """Nothing: only the view of the data changes."""
    return 0


def per_input(weight: int = 1) -> Callable[[Mapping[str, Any], Abstract], int]:
    """``weight`` operations for each element of the first argument."""

    def price(bound: Mapping[str, Any], result: Abstract) -> int:
        return weight * elements(next(iter(bound.values())))

    return price


def sorting(bound: Mapping[str, Any], result: Abstract) -> int:
    """``n log n`` comparisons for the ``n`` elements of ``input``."""
    count = elements(bound["input"])
    return count * max(1, count.bit_length())


def contraction(bound: Mapping[str, Any], result: Abstract) -> int:
    """A multiplication and an addition for each element of the result and of the contracted last axis of ``input``."""
    return 2 * elements(result) * int(bound["input"].shape[-1])
