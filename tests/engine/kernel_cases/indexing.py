"""Arguments for operations that pick or replace elements."""

from __future__ import annotations

from itertools import product
from typing import Any

from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import SliceArg
from tests.engine.kernel_cases.arguments import DTYPES, SHAPES, Case, b, case, f, i

S = SliceArg
INDICES: tuple[Any, ...] = (
    0,
    -1,
    2,
    5,
    -6,
    None,
    ...,
    S(),
    S(1, 3),
    S(None, None, 2),
    S(-2),
    S(5, 2),
    S(0, -9),
    S(0, 2, 0),
    S(0, 2, -1),
    (),
    (0, 1),
    (0, 5),
    (0, 1, 2),
    (0, 1, 2, 0),
    (..., 0),
    (..., 9),
    (0, ...),
    (..., 0, ...),
    (0, ..., None),
    (S(), -1),
    (S(), 9),
    (S(0, 1), S(1)),
    (None, S(), None),
    ((0, 1, 1),),
    ((0, 7),),
    ((),),
    (((0, 1), (1, 0)),),
    (((0, 1), (1,)),),
    (S(), (0, 2)),
    ((0, 1), (0, 2)),
    ((0, 1), (0, 1, 2)),
    ((0, 1), S(), (0, 1)),
    ((0, 1), 0, (0, 1)),
    ((0, 1), None, (0, 1)),
    (0, S(), (0, 1)),
    (S(), (0, 1), (0, 2)),
    (S(), ((0,), (1,)), (0, 2)),
    ((True, False),),
    ((True, False, True),),
    (S(), (True, False, True)),
    ((True, False), (0,)),
    i(),
    i(3),
    i(2, 2),
    i(0),
    AbstractTensor((3,), "int32"),
    AbstractTensor((3,), "float32"),
    (0, i()),
    (i(), i()),
    (S(), i(3)),
    (..., i(3)),
    (i(3), i(3)),
    (i(2, 1), i(3)),
    (i(2), i(3)),
    (i(2), S(), i(2)),
    (i(2), 0, i(2)),
    (0, S(), i(2)),
    (0.5,),
    ("a",),
)

MASKS: tuple[Any, ...] = (
    b(2),
    b(2, 3),
    b(3),
    b(2, 3, 4),
    b(2, 3, 4, 5),
    (S(), b(3)),
    (..., b(4)),
    (0, b(3)),
    (S(), b(3), 0),
    (b(2), S(), 0),
    (None, b(2)),
)


def indexing() -> dict[str, list[Case]]:
    x, y = f(2, 3), f(2, 3, 4)
    values = (1, 0.5, True, f(), f(1), f(4), f(3), f(2), f(1, 4), f(3, 4), f(2, 3, 4), f(1, 1, 3, 4), f(5), i(4))
    return {
        "getitem": [
            *(case(value, index) for value, index in product((y, x, f(3), f(), f(0, 3)), (*INDICES, *MASKS))),
            *(case((x, y), index) for index in (0, 1, -1, -2, 2, -3, (0,), (1, 0), None, ..., S())),
            case((2, 3), -1),
            case(2, 0),
        ],
        "setitem": [
            *(case(value, index, 0.5) for value, index in product((y, x, f(3), f(), f(0, 3)), INDICES)),
            *(
                case(y, index, value)
                for value, index in product(
                    values, (0, (0, 1), S(), (..., 0), (), ..., (S(), (0, 1)), i(2), (S(), i()), S(5, 6), None)
                )
            ),
            *(case(y, mask, value) for mask, value in product(MASKS, (1, 0.5, f(), f(1), f(4)))),
            *(case(AbstractTensor((2, 3), a), 0, AbstractTensor((3,), c)) for a, c in product(DTYPES, DTYPES)),
            *(case(AbstractTensor((2, 3), a), (i(2),), AbstractTensor((3,), c)) for a, c in product(DTYPES, DTYPES)),
            *(case(AbstractTensor((3,), a), 0, number) for a, number in product(DTYPES, (True, 2, 0.5))),
            case(i(3), 0, float("nan")),
            case((x, y), 0, y),
            case((x, y), (1, 0, 0), 1.0),
            case((x, y), (0, 7), 1.0),
            case((x, y), 2, y),
        ],
        "gather": [
            *(
                case(f(*s), d, i(*n))
                for s, d, n in product(
                    ((), (3,), (2, 3), (2, 1, 3)),
                    (0, 1, -1, 3),
                    ((), (1,), (2,), (2, 5), (1, 2), (3, 3), (2, 1, 1), (0, 3)),
                )
            ),
            case(x, 0, f(2, 3)),
            case(x, 0, b(2, 3)),
            case(f(0, 3), 0, i(2, 3)),
            case(f(0, 3), 0, i(0, 3)),
        ],
        "scatter": [
            *(
                case(f(*s), d, i(*n), src)
                for s, d, n, src in product(
                    ((), (3,), (2, 3)),
                    (0, 1, -1),
                    ((), (1,), (2,), (2, 2), (1, 5), (0, 3)),
                    (0.5, 1, f(2), f(2, 5), f(0, 3)),
                )
            ),
            case(x, 0, i(1, 3), f(1, 3, dtype="float64")),
            case(x, 0, f(1, 3), f(1, 3)),
            case(f(0, 3), 0, i(2, 3), 0.5),
            case(i(2, 3), 0, i(1, 3), 1),
            case(i(2, 3), 0, i(1, 3), 0.5),
        ],
        "scatter_add": [
            case(x, 0, i(1, 3), f(1, 3)),
            case(x, 0, i(5, 3), f(5, 3)),
            case(x, 1, i(2, 5), f(2, 5)),
            case(x, 1, i(2, 5), f(2, 4)),
            case(x, 0, i(1, 3), f(1, 3, dtype="float64")),
            case(x, 0, i(1, 3), 1.0),
            case(x, 2, i(1, 3), f(1, 3)),
        ],
        "index_select": [
            *(
                case(f(*s), d, n)
                for s, d, n in product(
                    ((3,), (2, 3), (0, 3)),
                    (0, 1, -1, 4),
                    (i(), i(2), i(0), i(2, 2), AbstractTensor((2,), "int32"), f(2)),
                )
            ),
        ],
        "index_add": [
            case(x, 0, i(4), f(4, 3)),
            case(x, 1, i(4), f(2, 4)),
            case(x, 1, i(4), f(2, 3)),
            case(x, 0, i(4, 1), f(4, 3)),
            case(x, 0, f(4), f(4, 3)),
            case(x, 0, i(4), f(4, 3, dtype="float64")),
            case(x, 4, i(4), f(4, 3)),
            case(f(3), 0, i(2), f(2)),
        ],
        "take_along_dim": [
            *(
                case(f(*s), i(*n), d)
                for s, n, d in product(
                    ((), (3,), (2, 3)), ((), (1,), (5,), (2, 1), (1, 4), (4, 3), (5, 4)), (None, 0, 1, -1, 4)
                )
            ),
            case(x, f(2, 1), 1),
        ],
        "masked_fill": [
            *(case(f(*s), b(*m), 0.5) for s, m in product(SHAPES, SHAPES)),
            case(x, i(2, 3), 0.5),
            case(x, b(2, 3), f()),
            case(x, b(2, 3), f(1)),
            case(x, b(2, 3), i()),
            *(case(AbstractTensor((3,), a), b(3), n) for a, n in product(DTYPES, (True, 2))),
        ],
        "embedding": [
            case(i(2, 5), f(7, 3)),
            case(i(), f(7, 3)),
            case(AbstractTensor((2,), "int32"), f(7, 3, dtype="float16")),
            case(f(2), f(7, 3)),
            case(i(2), f(7)),
            case(i(2), f(7, 3, 2)),
            case(b(2), f(7, 3)),
            case(i(2), f(0, 3)),
            case(i(0), f(0, 3)),
        ],
        "one_hot": [case(i(2, 3), 5), case(i(), 5), case(f(2), 5), case(i(2), 0), case(b(2), 3)],
    }
