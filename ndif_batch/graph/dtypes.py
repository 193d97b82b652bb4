"""Dtypes by torch's names, and torch's rules for the dtype of a result."""

from __future__ import annotations

from itertools import product

from ndif_batch.graph.abstract import ITEM_BYTES, AbstractTensor

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
DEFAULT_FLOAT = "float32"

Operand = AbstractTensor | bool | int | float


def _promote(a: str, b: str) -> str:
    if a == b or b == "bool":
        return a
    if a == "bool" or (b in FLOATS and a not in FLOATS):
        return b
    if a in FLOATS and b not in FLOATS:
        return a
    if ITEM_BYTES[a] != ITEM_BYTES[b] and "uint8" not in (a, b):
        return max(a, b, key=ITEM_BYTES.__getitem__)
    if a in FLOATS:
        return "float32"
    signed = b if a == "uint8" else a
    return "int16" if signed == "int8" else signed


_PROMOTED = {(a, b): _promote(a, b) for a, b in product(ITEM_BYTES, repeat=2)}


def promote(a: str, b: str) -> str:
    """The smallest dtype that holds both (``torch.promote_types``)."""
    return _PROMOTED[a, b]


def number_dtype(value: bool | int | float) -> str:
    """The dtype that a Python number becomes."""
    if isinstance(value, bool):
        return "bool"
    return "int64" if isinstance(value, int) else DEFAULT_FLOAT


def result_type(*operands: Operand) -> str:
    """The dtype of an arithmetic result (``torch.result_type``).

    Tensors with dimensions decide over tensors without, and those over Python numbers, unless a later one is of a
    higher category (bool < integer < float).
    """
    first = operands[0]
    if isinstance(first, AbstractTensor) and first.shape:
        for other in operands[1:]:
            if not isinstance(other, AbstractTensor) or not other.shape or other.dtype != first.dtype:
                break
        else:
            return first.dtype
    dimensioned = zero_dimensional = number = ""
    for operand in operands:
        if not isinstance(operand, AbstractTensor):
            number = _join(number, number_dtype(operand))
        elif operand.shape:
            dimensioned = _join(dimensioned, operand.dtype)
        else:
            zero_dimensional = _join(zero_dimensional, operand.dtype)
    return _decide(dimensioned, _decide(zero_dimensional, number))


def _join(a: str, b: str) -> str:
    return _PROMOTED[a, b] if a else b


def _decide(higher: str, lower: str) -> str:
    if not higher or not lower:
        return higher or lower
    if higher in FLOATS or (higher != "bool" and lower not in FLOATS):
        return higher
    return _PROMOTED[higher, lower]
