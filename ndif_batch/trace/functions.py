"""torch's functions by the names of the operation table: aliases, and what torch adds to a call by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from ndif_batch.graph.operations import OPERATIONS, Kind, Operation
from ndif_batch.trace.place import refusal

ALIASES: Mapping[str, str] = {
    "absolute": "abs",
    "and": "bitwise_and",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "div": "truediv",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "greater": "gt",
    "greater_equal": "ge",
    "invert": "bitwise_not",
    "less": "lt",
    "less_equal": "le",
    "linalg_vector_norm": "norm",
    "log_sigmoid": "logsigmoid",
    "mm": "matmul",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "or": "bitwise_or",
    "remainder": "mod",
    "special_expit": "sigmoid",
    "special_softmax": "softmax",
    "special_log_softmax": "log_softmax",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "true_divide": "truediv",
    "xor": "bitwise_xor",
}

ARGUMENTS = {"axis": "dim", "keepdims": "keepdim", "ord": "p"}
"""numpy's and ``torch.linalg``'s names of arguments."""

CASTS = {
    "bfloat16": "bfloat16",
    "bool": "bool",
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "int": "int32",
    "long": "int64",
}
"""Tensor methods that convert to a dtype."""

VIEWS = frozenset(
    {
        *("cast", "chunk", "detach", "diagonal", "expand", "expand_as", "flatten", "movedim", "permute", "reshape"),
        *("split", "squeeze", "transpose", "unbind", "unflatten", "unsqueeze", "view"),
    }
)
"""Operations whose result can share memory with its argument in torch."""

_TWO = ("values", "indices")
RESULTS = {"topk": _TWO, "sort": _TWO, "max": _TWO, "min": _TWO, "median": _TWO}
"""Names of the results of operations that give several; ``max`` and its like only with a ``dim``."""


def operation(name: str) -> Operation:
    """The operation that torch calls ``name``; ``TraceError`` with the nearest one."""
    found = find(name)
    if found is None:
        raise refusal(f"{name!r} is no operation of a graph", hint=nearest_operation(name))
    return found


def find(name: str) -> Operation | None:
    """The pure operation that torch calls ``name``, or ``None``."""
    found = OPERATIONS.get(ALIASES.get(name, name))
    return found if found is not None and found.kind is Kind.PURE else None


def nearest_operation(name: str) -> str:
    """A hint for a name that no operation has."""
    known = [*(known for known, row in OPERATIONS.items() if row.kind is Kind.PURE), *ALIASES]
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    near = f"did you mean {close[0]!r}? " if close else ""
    return f"{near}Only torch's pure functions can be recorded: `ndif_batch.graph.operations` lists them"


def without_defaults(func: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """``kwargs`` less those that torch filled in with the function's own defaults."""
    try:
        parameters = inspect.signature(func).parameters
    except ValueError:
        return {name: value for name, value in kwargs.items() if name != "out" or value is not None}
    return {
        name: value
        for name, value in kwargs.items()
        if name != "_stacklevel" and not (name in parameters and _same(parameters[name].default, value))
    }


def canonical_kwargs(operation: Operation, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """``kwargs`` with the table's names of arguments."""
    known = {parameter.name for parameter in operation.parameters}
    return {ARGUMENTS[k] if k not in known and ARGUMENTS.get(k) in known else k: v for k, v in kwargs.items()}


def _same(default: object, value: object) -> bool:
    return type(default) is type(value) and isinstance(value, None | bool | int | float | str) and default == value
