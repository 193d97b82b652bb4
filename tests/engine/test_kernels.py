"""Table and kernels together: a kernel's real result is what the shape rule promised, errors included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from ndif_batch.engine.kernels import DTYPES, KERNELS
from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.nodes import SliceArg
from ndif_batch.graph.operations import OPERATIONS, RANDOM, Kind
from ndif_batch.graph.signatures import describe
from tests.engine.kernel_cases import Case, all_cases

CASES = all_cases()

STRICTER: Mapping[str, str] = {
    "bmm": "must hold floating-point numbers",
    "clamp": "does not take bools",
    "cosine_similarity": "must hold floating-point numbers",
    "gather": "index has 2 dimensions",
    "getitem": r"only one \.\.\.|a tuple of 2 takes an int|only known when it runs",
    "kl_div": "batchmean needs a dimension",
    "linear": "must hold floating-point numbers",
    "matmul": "must hold floating-point numbers",
    "max": "keepdim needs dim",
    "median": "keepdim needs dim|no element to choose from",
    "min": "keepdim needs dim",
    "mse_loss": "dtypes differ",
    "pow": "does not take bools",
    "prod": "keepdim needs dim",
    "repeat": "must count from 0",
    "roll": "is outside the 2 dimensions",
    "scatter": "index has 2 dimensions",
    "setitem": r"only one \.\.\.|what the mask selects",
}
"""What the table refuses although torch would take it, and how it says so."""

TAKES_POSITIONS = frozenset({"cross_entropy", "embedding", "gather", "getitem", "index_add", "index_select", "one_hot"})
TAKES_POSITIONS |= {"scatter", "scatter_add", "setitem", "take_along_dim"}


def promise(name: str, case: Case) -> tuple[Abstract, str | None]:
    """What the table says: the abstract result, or why there is none."""
    args, kwargs = case
    try:
        return OPERATIONS[name].shape(OPERATIONS[name].bind(args, kwargs)), None
    except (ShapeError, ValueError) as error:
        return None, str(error)


def real(value: Any, integer: int, device: str) -> Any:
    """A value of that shape: ones, and ``integer`` where it holds integers."""
    if isinstance(value, AbstractTensor):
        fill = integer if value.dtype in ("int32", "int64") else 1
        return torch.full(value.shape, fill, dtype=DTYPES[value.dtype], device=device)
    if isinstance(value, SliceArg):
        return slice(value.start, value.stop, value.step)
    return tuple(real(item, integer, device) for item in value) if isinstance(value, tuple) else value


def abstract(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return AbstractTensor(tuple(value.shape), str(value.dtype).removeprefix("torch."))
    return tuple(abstract(item) for item in value) if isinstance(value, tuple | list) else value


def compute(name: str, case: Case, device: str = "cpu") -> tuple[Any, str | None]:
    """What torch says: the result, or the error. Fails if an argument changed."""
    args, kwargs = case
    integer = 0 if name in TAKES_POSITIONS else 1
    given = tuple(real(arg, integer, device) for arg in args)
    named = {key: real(value, integer, device) for key, value in kwargs.items()}
    if name in RANDOM:
        named["generator"] = torch.Generator().manual_seed(0)
    try:
        result = KERNELS[name](*given, device=device, **named)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, ShapeError) as error:
        return None, f"{type(error).__name__}: {error}"
    assert repr(given) == repr(tuple(real(arg, integer, device) for arg in args)), f"{name} changed an argument"
    return result, None


def test_table_and_kernels_hold_the_same_operations() -> None:
    pure = {name for name, operation in OPERATIONS.items() if operation.kind is Kind.PURE}
    assert set(KERNELS) == pure
    assert set(CASES) == pure


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_kernel_gives_what_the_shape_rule_promised(name: str) -> None:
    taken = refused = 0
    for case in CASES[name]:
        shown = f"{name}{describe(case[0])} {case[1]}"
        promised, refusal = promise(name, case)
        result, error = compute(name, case)
        if refusal is None:
            assert error is None, f"{shown}: promised {describe(promised)}, but {error}"
            found = abstract(result)
            assert (found, type(found)) == (promised, type(promised)), shown
            taken += 1
        else:
            strict = name in STRICTER and re.search(STRICTER[name], refusal)
            assert error is not None or strict, f"{shown}: torch gives {describe(abstract(result))}, but {refusal}"
            refused += 1
    assert taken
    assert refused


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_kernels_on_a_gpu_give_what_the_shape_rules_promised() -> None:
    wrong = []
    for name, case in ((operation, case) for operation in sorted(KERNELS) for case in CASES[operation]):
        promised, refusal = promise(name, case)
        if refusal is None:
            result, error = compute(name, case, "cuda")
            if error is not None or abstract(result) != promised:
                wrong.append(f"{name}{describe(case[0])} {case[1]}: {error or describe(abstract(result))}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_cost_is_a_count(name: str) -> None:
    for case in CASES[name]:
        result, refusal = promise(name, case)
        if refusal is None:
            cost = OPERATIONS[name].cost(OPERATIONS[name].bind(*case), result)
            assert type(cost) is int
            assert cost >= 0


def test_setitem_leaves_its_argument_as_it_was() -> None:
    before = torch.arange(6.0).reshape(2, 3)
    after = KERNELS["setitem"](before, (slice(None), -1), torch.tensor([10, 20]))
    assert before.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert after.tolist() == [[0, 1, 10], [3, 4, 20]]


def test_setitem_passes_gradients_to_both_values() -> None:
    base, value = torch.ones(3, requires_grad=True), torch.ones((), requires_grad=True)
    (KERNELS["setitem"](base, 1, value) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert base.grad is not None
    assert base.grad.tolist() == [1, 0, 3]
    assert value.grad == 2


def test_setitem_on_a_tuple_gives_a_new_tuple() -> None:
    first, second = torch.zeros(2), torch.zeros(2)
    after = KERNELS["setitem"]((first, second), (1, 0), 5.0)
    assert after[0] is first
    assert after[1].tolist() == [5, 0]
    assert second.tolist() == [0, 0]
    assert KERNELS["setitem"]((first, second), 0, second) == (second, second)


def test_getitem_takes_lists_tensors_masks_and_tuples() -> None:
    value = torch.arange(12).reshape(3, 4)
    getitem = KERNELS["getitem"]
    assert getitem(value, (slice(None), (3, 0))).tolist() == [[3, 0], [7, 4], [11, 8]]
    assert getitem(value, ((0, 2), (1, 3))).tolist() == [1, 11]
    assert getitem(value, ((True, False, True),)).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert getitem(value, (..., None, torch.tensor(1))).tolist() == [[1], [5], [9]]
    assert getitem(value, torch.tensor([2, 2])).tolist() == [[8, 9, 10, 11]] * 2
    assert getitem((value, "other"), 1) == "other"


def test_masked_setitem_fills_where_the_mask_is_true() -> None:
    value = torch.zeros(2, 3)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert KERNELS["setitem"](value, mask, 7.0).tolist() == [[7, 0, 7], [0, 0, 7]]


@pytest.mark.parametrize(
    ("name", "args"), [("randn", (4, 5)), ("rand", (7,)), ("randint", (0, 99, (8,))), ("randperm", (9,))]
)
def test_random_kernels_depend_on_the_generator_alone(name: str, args: tuple[Any, ...]) -> None:
    torch.manual_seed(1)
    first = KERNELS[name](*args, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    again = KERNELS[name](*args, generator=torch.Generator().manual_seed(3))
    other = KERNELS[name](*args, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_numbers_stay_numbers_and_cannot_grow_without_bound() -> None:
    assert KERNELS["add"](2, 3) == 5
    assert KERNELS["floordiv"](-7, 2) == -4
    assert type(KERNELS["truediv"](4, 2)) is float
    with pytest.raises(ShapeError, match="64 bits"):
        KERNELS["pow"](10, 10**12)
    with pytest.raises(ShapeError, match="64 bits"):
        KERNELS["mul"](2**62, 4)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("std", (torch.tensor([1.0, 3.0]),), 2**0.5),
        ("mod", (torch.tensor(-7), 3), 2),
        ("truediv", (torch.tensor(7), 2), 3.5),
        ("norm", (torch.tensor([3.0, 4.0]),), 5.0),
        ("norm", (torch.tensor([3.0, 4.0]), 1), 7.0),
        ("logsumexp", (torch.zeros(4), 0), 1.3862943649291992),
        ("median", (torch.tensor([4, 1, 3, 2]),), 2),
        ("mse_loss", (torch.zeros(2), torch.ones(2)), 1.0),
        ("quantile", (torch.tensor([0.0, 1.0, 2.0]), 0.25), 0.5),
        ("gelu", (torch.tensor(1.0),), 0.8413447141647339),
    ],
)
def test_kernel_values(name: str, args: tuple[Any, ...], expected: float) -> None:
    assert KERNELS[name](*args).item() == pytest.approx(expected, rel=1e-6)


def test_unbiased_is_the_older_name_of_correction() -> None:
    value = torch.tensor([1.0, 3.0])
    assert KERNELS["var"](value, unbiased=False) == KERNELS["var"](value, correction=0) == 1
    assert KERNELS["var"](value, unbiased=True) == KERNELS["var"](value) == 2
