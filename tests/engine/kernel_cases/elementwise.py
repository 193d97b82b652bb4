"""Arguments for elementwise operations."""

from __future__ import annotations

from itertools import product

from ndif_batch.graph.abstract import AbstractTensor
from tests.engine.kernel_cases.arguments import (
    DTYPES,
    NUMBERS,
    Case,
    b,
    case,
    f,
    i,
    number_pairs,
    pairs,
    tensor_pairs,
    unary,
)

_BINARY = "add sub mul truediv floordiv mod pow eq ne lt le gt ge"
_TENSOR_BINARY = "logical_and logical_or logical_xor maximum minimum"
_BITWISE = "bitwise_and bitwise_or bitwise_xor"
_UNARY = (
    "neg abs logical_not bitwise_not isnan isinf isfinite nan_to_num clone detach exp exp2 expm1 log log2 log10 log1p "
    "sqrt rsqrt reciprocal sigmoid tanh sin cos tan atan erf floor ceil trunc round sign square relu gelu silu "
    "logsigmoid softplus leaky_relu elu"
)


def operators() -> dict[str, list[Case]]:
    return {
        **{name: [*pairs(), *number_pairs()] for name in _BINARY.split()},
        **{name: list(tensor_pairs()) for name in _TENSOR_BINARY.split()},
        **{name: list(pairs()) for name in _BITWISE.split()},
        **{name: list(unary()) for name in _UNARY.split()},
    }


def elementwise() -> dict[str, list[Case]]:
    x = f(2, 3)
    return {
        "neg": [case(3), case(True), case(0.5), case("a")],
        "abs": [case(-3), case(-0.5)],
        "where": [
            *(case(b(2, 3), *args) for args, _ in pairs()),
            case(b(2, 3), 1, 0),
            case(b(2, 3), 1.0, 0),
            case(b(2, 3), True, False),
            case(b(3), f(2, 1), 0.0),
            case(b(4), f(2, 3), 0.0),
            case(f(2, 3), f(2, 3), 0.0),
            case(i(2, 3), f(2, 3), 0.0),
        ],
        "clamp": [
            *(case(AbstractTensor((3,), dtype), low) for dtype, low in product(DTYPES, NUMBERS)),
            *(case(AbstractTensor((3,), dtype), low, 7) for dtype, low in product(DTYPES, NUMBERS)),
            *(case(AbstractTensor((3,), one), max=AbstractTensor((1,), two)) for one, two in product(DTYPES, DTYPES)),
            case(x),
            case(x, f(3), f(2, 1)),
            case(x, f(2)),
            case(x, f(3), 1.0),
            case(x, "a"),
        ],
        "lerp": [
            case(x, x, 0.5),
            case(x, f(3), f(2, 1)),
            case(x, f(2), 0.5),
            case(i(3), i(3), 0.5),
            case(x, f(2, 3, dtype="float64"), 0.5),
            case(x, x, f(2, 3, dtype="float64")),
            *(case(AbstractTensor((3,), dtype), AbstractTensor((3,), dtype), 1) for dtype in DTYPES),
        ],
        "isclose": [case(x, f(3)), case(x, i(2, 3)), case(i(3), i(3)), case(x, f(2)), case(x, x, equal_nan=True)],
        "round": [case(x, decimals=2), case(i(3), decimals=2), case(i(3), decimals=0), case(x, decimals=0.5)],
        "gelu": [case(x, approximate="tanh"), case(x, approximate="fast")],
        "softplus": [case(x, 2.0, 10.0), case(x, beta="a")],
        "leaky_relu": [case(x, 0.1)],
        "elu": [case(x, 2.0)],
        "nan_to_num": [case(x, 0.0, posinf=1.0), case(i(3), nan=0.0)],
    }
