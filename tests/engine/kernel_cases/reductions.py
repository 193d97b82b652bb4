"""Arguments for reductions, scans and order."""

from __future__ import annotations

from itertools import product

from ndif_batch.graph.abstract import AbstractTensor
from tests.engine.kernel_cases.arguments import DTYPES, SHAPES, Case, b, case, dims, dtypes_of, f, i


def reductions() -> dict[str, list[Case]]:
    x = f(2, 3)
    typed = list(dtypes_of(x))
    single = list(dims(several=False))
    scan = [*dims(optional=False, keepdim=False, several=False), *dtypes_of(x, 1)]
    order = [
        *dims(optional=False, keepdim=False, several=False),
        case(x, -1, True),
        case(f()),
        case(x, descending=True),
    ]
    return {
        "sum": [*dims(), *typed, case(i(2, 3), dtype="float32")],
        "mean": [*dims(), *typed, case(i(2, 3), dtype="float32"), case(x, dim="a")],
        "prod": [*single, *typed],
        **dict.fromkeys(("max", "min", "median", "argmax", "argmin"), single),
        **{name: list(dims()) for name in ("amax", "amin", "any", "all")},
        "count_nonzero": list(dims(keepdim=False)),
        **{
            name: [
                *dims(keepdim=False),
                case(x, -1, keepdim=True),
                case(x, -1, unbiased=False),
                case(x, correction=0, keepdim=True),
                case(x, (0, 1), unbiased=True),
                case(x, -1, True),
            ]
            for name in ("var", "std")
        },
        "norm": [
            *(case(args[0], 2, *args[1:]) for args, _ in dims()),
            *(case(f(*shape), p, -1) for shape, p in product(SHAPES, (0, 1, 3.5, float("inf"), -1))),
            *(case(f(0, 3), p, 0) for p in (0, 1, 2, float("inf"), -1)),
            case(x, "fro"),
        ],
        "cumsum": scan,
        "cumprod": scan,
        "diff": [case(x), case(x, 2), case(x, 5), case(x, -1), case(x, 1, 0), case(x, 1, 2), case(f()), case(b(3))],
        "softmax": scan,
        "log_softmax": scan,
        "logsumexp": [case(*args) for args, _ in dims(optional=False)],
        "sort": order,
        "argsort": order,
        "topk": [
            *(case(f(*shape), k, dim) for shape, k, dim in product(SHAPES, (0, 1, 3, 4, -1), (-1, 0, 1, 5))),
            *(case(AbstractTensor((2, 3), dtype), 2) for dtype in DTYPES),
            case(x, 2, largest=False, sorted=False),
            case(x, 2.0),
        ],
        "quantile": [
            *(case(AbstractTensor((2, 3), dtype), 0.5) for dtype in DTYPES),
            *(case(f(*shape), 0.5, dim, keep) for shape, dim, keep in product(SHAPES, (None, 0, -1, 4), (True, False))),
            case(x, f(4), 1),
            case(x, f(), 1, True),
            case(x, f(4), None, True),
            case(x, f(2, 2)),
            case(x, f(2, dtype="float64")),
            case(x, 1.5),
            case(x, 0.5, interpolation="lower"),
            case(x, 0.5, interpolation="best"),
        ],
    }
