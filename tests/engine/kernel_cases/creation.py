"""Arguments for operations that make tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ndif_batch.graph.abstract import AbstractTensor
from tests.engine.kernel_cases.arguments import DTYPES, NUMBERS, Case, case, dtypes_of, f, i


def _sized(*more: Case) -> Iterator[Case]:
    yield from (case(2, 3), case((2, 3)), case(()), case(0), case(-1), case((2, -1)), case(2.5), case())
    yield from dtypes_of(2, 3)
    yield from more


def creation() -> dict[str, list[Case]]:
    x = f(2, 3)
    bounds = (0, 5, 1.5, -3, True, float("inf"), float("nan"))
    likes = [*(case(AbstractTensor((2, 3), dtype)) for dtype in DTYPES), *dtypes_of(x), case(f())]
    return {
        "arange": [
            *(case(end) for end in bounds),
            *(case(start, end) for start, end in product(bounds, bounds)),
            *(
                case(start, end, step)
                for start, end, step in product((0, 5, -1.5), (0, 5, 7.25), (1, 2, 0.3, -1, -2.5, 0))
            ),
            *dtypes_of(2),
            *dtypes_of(0, 5, 2),
            *dtypes_of(0.5, 2.5),
        ],
        "linspace": [case(0, 1, 5), case(0.5, -1.0, 0), case(0, 1, -1), case(0, 1, 1.5), *dtypes_of(0, 1, 3)],
        "zeros": list(_sized()),
        "ones": list(_sized()),
        "full": [
            *(case((2, 3), number) for number in NUMBERS),
            case(3, 1),
            case((), 0.5),
            case((-1,), 0),
            case((2,), float("nan")),
            case((2,), float("inf"), dtype="int64"),
            *dtypes_of((2,), 1),
        ],
        "eye": [case(3), case(3, 4), case(0), case(-1), case(3, -1), *dtypes_of(3)],
        "zeros_like": likes,
        "ones_like": likes,
        "full_like": [
            *(case(AbstractTensor((2, 3), dtype), number) for dtype, number in product(DTYPES, (True, 2, 0.5))),
            *(case(x, 1, dtype=dtype) for dtype in DTYPES),
            case(i(3), float("nan")),
        ],
        "rand": list(_sized()),
        "randn": list(_sized()),
        "rand_like": likes,
        "randn_like": likes,
        "randint": [case(0, 5, (2, 3)), case(0, 5, 3), case(5, 5, (2,)), case(5, 0, (2,)), case(0, 5, (-1,))],
        "randperm": [case(5), case(0), case(-1)],
    }
