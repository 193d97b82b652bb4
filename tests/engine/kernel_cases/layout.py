"""Arguments for operations that rearrange elements."""

from __future__ import annotations

from itertools import product

from ndif_batch.graph.abstract import AbstractTensor
from tests.engine.kernel_cases.arguments import DTYPES, SHAPES, Case, case, f


def layout() -> dict[str, list[Case]]:
    x, y = f(2, 3), f(2, 3, 4)
    shapes = ((6,), (3, 2), (-1,), (-1, 2), (4, -1), (-1, -1), (2, 3, 1), (0, -1), (), (7,), (-2, 3), (0,))
    reshaped = [case(f(*shape), *to) for shape, to in product((*SHAPES, (2, 3), (0,)), shapes)]
    return {
        "reshape": [*reshaped, case(x, (3, 2)), case(x, shape=(6,)), case(x, "a"), case(x, 2.0, 3)],
        "view": reshaped,
        "transpose": [case(f(*s), a, c) for s, a, c in product(SHAPES, (0, -1, 1, 3), (0, -2, 2))],
        "permute": [
            case(y, 2, 0, 1),
            case(y, (0, -1, 1)),
            case(y, 0, 1),
            case(y, 0, 0, 1),
            case(y, 0, 1, 5),
            case(f(), ()),
            case(f(3), 0),
        ],
        "movedim": [
            case(y, 0, -1),
            case(y, (0, 1), (2, 0)),
            case(y, (0, 1), 0),
            case(y, 0, 3),
            case(y, (0, 0), (1, 2)),
            case(f(), 0, 0),
        ],
        "flatten": [
            case(f(*s), *args) for s, args in product((*SHAPES, (2, 3, 4)), ((), (0, 1), (1,), (-2, -1), (1, 0), (5,)))
        ],
        "unflatten": [
            case(f(6), 0, (2, 3)),
            case(f(2, 6), 1, (2, -1)),
            case(f(2, 6), -1, (4, -1)),
            case(f(2, 6), 1, (5,)),
            case(f(2, 6), 2, (6,)),
            case(f(2, 6), 1, 6),
            case(f(2, 6), 1, ()),
            case(f(), 0, (1,)),
        ],
        "squeeze": [case(f(*s), *args) for s, args in product(SHAPES, ((), (0,), (1,), (-1,), ((0, 1),), ((0, 0),)))],
        "unsqueeze": [case(f(*s), dim) for s, dim in product(SHAPES, (0, 1, -1, 3, -4, 5))],
        "expand": [
            case(f(*s), *to)
            for s, to in product(SHAPES, ((2, 3), (4, 2, 3), (-1, 3), (3,), (2, 2, 3), (-1, 2, 3), (), (0,), (-2, 3)))
        ],
        "expand_as": [case(f(*a), f(*c)) for a, c in product(SHAPES, SHAPES)],
        "diagonal": [
            case(f(3)),
            case(x),
            case(x, 1),
            case(x, 5),
            case(x, -1),
            case(x, -5),
            case(y, 0, 1, 2),
            case(y, 0, -1, 0),
            case(y, 0, 1, 1),
            case(y, 0, 1, 4),
        ],
        "size": [case(x), case(x, 0), case(x, -1), case(x, 2), case(f()), case(f(), 0), case(f(0, 3), 0)],
        "split": [
            case(f(*s), size, dim)
            for s, size, dim in product(
                ((), (5,), (5, 2), (0, 2)), (2, 5, 7, 0, -1, (2, 3), (5, 0), (1, 1)), (0, 1, -1)
            )
        ],
        "chunk": [
            case(f(*s), n, dim) for s, n, dim in product(((), (5,), (5, 2), (0, 2)), (1, 2, 4, 9, 0, -1), (0, 1, -1, 3))
        ],
        "unbind": [case(f(*s), dim) for s, dim in product(SHAPES, (0, 1, -1))],
        "cat": [
            case((x, x)),
            case((x, f(5, 3))),
            case((x, f(2, 1)), -1),
            case((x, f(2, 1))),
            case((x, f(2, 3, 1))),
            case((x, x), 2),
            case((x, f(0, 3))),
            case((f(), f())),
            case(()),
            case((x,)),
            case(x),
            *(case((AbstractTensor((2,), a), AbstractTensor((3,), c))) for a, c in product(DTYPES, DTYPES)),
        ],
        "stack": [
            case((x, x)),
            case((x, x), -1),
            case((x, x), 2),
            case((x, x), 3),
            case((x, f(2, 1))),
            case((f(), f())),
            case(()),
            *(case((AbstractTensor((3,), a), AbstractTensor((3,), c))) for a, c in product(DTYPES, DTYPES)),
            *(case((AbstractTensor((), a), AbstractTensor((), c))) for a, c in product(DTYPES, DTYPES)),
        ],
        "repeat": [case(f(*s), *n) for s, n in product(SHAPES, ((2,), (2, 3), (1, 2, 1), (0, 1), (-1, 2), ()))],
        "repeat_interleave": [case(f(*s), n, dim) for s, n, dim in product(SHAPES, (2, 0, 1, -1), (None, 0, 1, -1, 4))],
        "flip": [case(f(*s), *d) for s, d in product(SHAPES, ((0,), (0, 1), (-1,), (0, 0), (4,), ((0, 1),)))],
        "roll": [
            case(f(*s), shift, d)
            for s, shift, d in product(SHAPES, (1, (1,), (1, 2), -5), (None, 0, (0,), (0, 1), (0, 0), 4))
        ],
        "tril": [case(f(*s), *d) for s, d in product(SHAPES, ((), (1,), (-1,)))],
        "triu": [case(f(*s), *d) for s, d in product(SHAPES, ((), (1,), (-1,)))],
        "pad": [
            case(f(*s), p)
            for s, p in product(SHAPES, ((1, 1), (0, 2, 1, 0), (1,), (-1, 0), (-5, 0), (1, 1, 1, 1, 1, 1, 1, 1)))
        ],
        "cast": [case(AbstractTensor((2, 3), a), c) for a, c in product(DTYPES, (*DTYPES, "float", "complex64"))],
    }
