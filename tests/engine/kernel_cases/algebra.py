"""Arguments for linear algebra, normalisation and losses."""

from __future__ import annotations

from itertools import product

from ndif_batch.graph.abstract import AbstractTensor
from tests.engine.kernel_cases.arguments import DTYPES, SHAPES, Case, case, f, i

EQUATIONS = (
    ("ij,jk->ik", (f(2, 3), f(3, 4))),
    ("ij,jk", (f(2, 3), f(3, 4))),
    ("ij,jk->ik", (f(2, 3), f(4, 4))),
    ("bhqd,bhkd->bhqk", (f(1, 2, 3, 4), f(1, 2, 5, 4))),
    ("...d,d->...", (f(2, 3, 4), f(4))),
    ("...d,...d", (f(2, 3, 4), f(3, 4))),
    ("...d,...d->...", (f(2, 3, 4), f(5, 4))),
    ("...i,...j->...ij", (f(2, 3), f(2, 4))),
    ("i...->...", (f(2, 3, 4),)),
    ("i...j->ji...", (f(2, 3, 4),)),
    ("...ij->ij", (f(2, 3, 4),)),
    ("ii", (f(3, 3),)),
    ("ii->i", (f(3, 3),)),
    ("ii->i", (f(3, 1),)),
    ("ii->i", (f(2, 3),)),
    ("ij->ji", (f(2, 3),)),
    ("ij->", (f(2, 3),)),
    ("i,i->", (f(3), f(1))),
    ("i,j->ij", (f(3), f(0))),
    ("Ab,bA", (f(3, 2), f(2, 3))),
    ("bA", (f(3, 2),)),
    ("ij,jk,kl->il", (f(2, 3), f(3, 4), f(4, 5))),
    (" i j , j k -> i k ", (f(2, 3), f(3, 4))),
    ("->", (f(),)),
    (",->", (f(), f())),
    ("i->ii", (f(3),)),
    ("i->j", (f(3),)),
    ("ij->i", (f(3),)),
    ("i", (f(3, 2),)),
    ("i,j->ij", (f(3),)),
    ("i->i", (f(3), f(3))),
    ("i1->i", (f(3, 3),)),
    ("..i->i", (f(3),)),
    ("i->i->i", (f(3),)),
    ("i,->i", (f(3), f())),
    ("ij,ij->i...", (f(2, 3), f(2, 3))),
    ("...i->i", (f(4, 3),)),
)


def algebra() -> dict[str, list[Case]]:
    x = f(2, 3)
    stacks = ((), (3,), (2, 3), (3, 2), (5, 3, 2), (1, 2, 3), (4, 1, 2, 3), (0, 3), (3, 0))
    losses = ("none", "mean", "sum", "batchmean", "max")
    return {
        "matmul": [
            *(case(f(*a), f(*c)) for a, c in product(stacks, stacks)),
            *(
                case(AbstractTensor((2, 3), a), AbstractTensor((3,), c))
                for a, c in product(DTYPES, ("float32", "float16"))
            ),
        ],
        "bmm": [
            *(case(f(*a), f(*c)) for a, c in product(stacks, (*stacks, (5, 2, 4), (1, 3, 0)))),
            case(f(5, 3, 2), f(5, 2, 4, dtype="float64")),
        ],
        "dot": [case(f(3), f(3)), case(f(3), f(2)), case(f(3), f(1, 3)), case(f(), f()), case(f(3), i(3))],
        "outer": [
            case(f(2, 2), f(3)),
            case(f(), f(3)),
            *(case(AbstractTensor((2,), a), AbstractTensor((3,), c)) for a, c in product(DTYPES, DTYPES)),
        ],
        "einsum": [
            *(case(equation, *operands) for equation, operands in EQUATIONS),
            case("ij,jk->ik", (x, f(3, 4))),
            case("ij,jk->ik", x, f(3, 4, dtype="float64")),
            case(x, x),
        ],
        "linear": [
            case(x, f(4, 3)),
            case(f(3), f(4, 3), f(4)),
            case(f(5, 2, 3), f(4, 3), bias=f(4)),
            case(x, f(4, 2)),
            case(x, f(4, 3), f(3)),
            case(x, f(4, 3, dtype="float64")),
            case(i(2, 3), i(4, 3)),
            case(f(), f(4, 3)),
        ],
        "layer_norm": [
            case(x, 3),
            case(x, (3,), f(3), f(3)),
            case(x, (2, 3)),
            case(x, 2),
            case(x, 3, f(2)),
            case(x, (3,), weight=f(3), eps=1e-6),
            case(i(2, 3), 3),
            case(f(2, 3, dtype="bfloat16"), 3),
            case(x, 3, f(3, dtype="float64")),
            case(f(), ()),
        ],
        "rms_norm": [
            case(x, 3),
            case(x, (3,), f(3)),
            case(x, 3, f(2)),
            case(x, 3, eps=1e-6),
            case(x, 4),
            case(i(2, 3), 3),
        ],
        "normalize": [
            case(x),
            case(x, 1.0, -1),
            case(x, dim=2),
            case(f(3)),
            case(f(3), dim=0),
            case(i(2, 3)),
            case(f(2, 3, dtype="float16"), dim=-1),
            case(f(), dim=0),
        ],
        "cosine_similarity": [
            *(case(f(*a), f(*c), -1) for a, c in product(SHAPES, SHAPES)),
            case(x, x),
            case(f(3), f(3)),
            case(f(3), f(3), 0),
            case(x, f(3), 5),
            case(x, i(2, 3)),
            case(i(2, 3), i(2, 3)),
            case(f(2, 3, dtype="bfloat16"), f(2, 3, dtype="bfloat16")),
            case(x, f(2, 3, dtype="float64")),
            case(x, f(3, dtype="float64"), 0),
        ],
        "cross_entropy": [
            case(f(5), i()),
            case(f(4, 5), i(4)),
            case(f(4, 5), i(3)),
            case(f(4, 5), i()),
            case(f(4, 5), f(4, 5)),
            case(f(4, 5), f(4)),
            case(f(4, 5, 3), i(4, 3)),
            case(f(4, 5, 3), i(4, 5)),
            case(f(4, 5), i(4), f(5)),
            case(f(4, 5), i(4), f(4)),
            case(f(), i()),
            case(i(4, 5), i(4)),
            case(f(4, 5), i(4), label_smoothing=0.1),
            case(f(4, 5), i(4), label_smoothing=2.0),
            case(f(4, 5), i(4), ignore_index=0),
            *(case(f(4, 5), i(4), reduction=name) for name in losses),
            *(case(f(4, 5), f(4, 5), reduction=name) for name in losses),
            *(case(f(4, 5, 3), f(4, 5, 3), reduction=name) for name in losses),
            *(case(AbstractTensor((4, 5), dtype), i(4)) for dtype in DTYPES),
        ],
        "kl_div": [
            case(x, f(3)),
            case(x, f(2)),
            case(i(2, 3), i(2, 3)),
            case(x, x, log_target=True),
            *(case(x, x, reduction=name) for name in losses),
            *(case(f(), f(), reduction=name) for name in losses),
        ],
        "mse_loss": [case(x, x), case(x, i(2, 3)), case(i(3), i(3)), *(case(x, x, reduction=name) for name in losses)],
    }
