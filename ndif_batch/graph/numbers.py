"""Arithmetic on plain numbers, as Python does it, bounded to 64 bits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Final, TypeAlias

from ndif_batch.errors import ShapeError

Number: TypeAlias = "bool | int | float"

_FUNCTIONS: Final[Mapping[str, Callable[..., Number]]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": operator.abs,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def calculate(name: str, *operands: Number) -> Number:
    """The operation ``name`` on numbers; ``ShapeError`` where the result does not exist or leaves 64 bits."""
    if name == "pow":
        _check_power(*operands)
    try:
        result = _FUNCTIONS[name](*operands)
    except ZeroDivisionError:
        raise ShapeError(f"{name} of {operands} divides by zero") from None
    except OverflowError:
        raise ShapeError(f"{name} of {operands} does not fit in 64 bits") from None
    if isinstance(result, complex):
        raise ShapeError(f"{name} of {operands} is no real number")
    if isinstance(result, int) and not -(2**63) <= result < 2**63:
        raise ShapeError(f"{name} of {operands} does not fit in 64 bits")
    return result


def _check_power(base: Number, exponent: Number) -> None:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and isfinite(exponent) and exponent * max(0, abs(int(base)).bit_length() - 1) > 64:
        raise ShapeError(f"{base} ** {exponent} does not fit in 64 bits")
