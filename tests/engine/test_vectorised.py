"""An operation on the values of many tasks at once is what it is task by task, or it is refused."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias
from zlib import crc32

import pytest
import torch

from ndif_batch.engine import vectorised
from ndif_batch.engine.kernels import DTYPES, KERNELS
from ndif_batch.engine.values import Each, Rows, leaves, mapped, of_task
from ndif_batch.engine.vectorised import ARITHMETIC, ONE_BY_ONE, OneByOneError, taken
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import SliceArg
from ndif_batch.graph.operations import RANDOM
from tests.engine.kernel_cases import Case, all_cases
from tests.engine.test_kernels import TAKES_POSITIONS, promise

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

CPU = torch.device("cpu")
TASKS = 3
CASES = all_cases()
OF_TENSORS = sorted(KERNELS.keys() - RANDOM - {"arange", "eye", "full", "linspace", "ones", "zeros"})

SOMETIMES_ALONE = {
    *vectorised.OTHERWISE,
    "cross_entropy",  # weights of classes that are each task's own
    "embedding",  # rows of no elements
    "flip",  # without axes
    "setitem",  # into a value that all tasks share
    "size",  # makes plain ints
    "squeeze",  # without axes
    "topk",  # without axes
}
"""All other operations go together whatever their arguments are."""


def value_of(argument: Any, low: int, high: int, generator: torch.Generator) -> Any:
    """A real argument; a tensor is another one for each task."""
    if isinstance(argument, AbstractTensor):
        shape, dtype = (TASKS, *argument.shape), DTYPES[argument.dtype]
        if dtype.is_floating_point:
            return Each((2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))
        whole = (0, 2) if dtype == torch.bool else (low, high)
        return Each(torch.randint(*whole, shape, generator=generator).to(dtype))
    if isinstance(argument, SliceArg):
        return slice(argument.start, argument.stop, argument.step)
    if isinstance(argument, tuple):
        return tuple(value_of(item, low, high, generator) for item in argument)
    return argument


def own_and_shared(args: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The arguments with every tensor the tasks' own, then only the first, then only the last."""
    count = sum(isinstance(leaf, Each) for leaf in leaves(args))
    for own in [set(range(count)), {0}, {count - 1}][: 3 if count > 1 else count]:
        numbers = iter(range(count))

        def leaf(one: Any, own: set[int] = own, numbers: Iterator[int] = numbers) -> Any:
            return one.stacked[0] if isinstance(one, Each) and next(numbers) not in own else one

        yield mapped(args, leaf)


def arguments(name: str, case: Case) -> Iterator[Arguments]:
    args, kwargs = case
    generator = torch.Generator().manual_seed(crc32(f"{name}{case}".encode()))
    low, high = (0, 2) if name in TAKES_POSITIONS else (-3, 4)
    values = tuple(value_of(argument, low, high, generator) for argument in (*args, *kwargs.values()))
    for flat in own_and_shared(values):
        yield flat[: len(args)], dict(zip(kwargs, flat[len(args) :], strict=True))


def alone(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], device: str = "cpu") -> list[Any] | None:
    """What each task has by itself; ``None`` if one of them fails."""
    try:
        return [
            KERNELS[name](*of_task(args, task), device=device, **{k: of_task(v, task) for k, v in kwargs.items()})
            for task in range(TASKS)
        ]
    except (RuntimeError, ValueError, IndexError):
        return None


def together(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What all tasks have at once; ``None`` if that is refused."""
    try:
        return vectorised.apply(name, args, kwargs, CPU)
    except (OneByOneError, RuntimeError, ValueError, IndexError, TypeError):
        return None


def spoken(caught: list[warnings.WarningMessage]) -> set[str]:
    return {str(warning.message) for warning in caught}


@pytest.mark.parametrize("name", OF_TENSORS)
def test_an_operation_for_all_tasks_is_what_it_is_for_each(name: str) -> None:
    went_together = went_alone = 0
    for case in CASES[name]:
        for args, kwargs in arguments(name, case) if promise(name, case)[1] is None else ():
            with warnings.catch_warnings(record=True) as usual:
                warnings.simplefilter("always")
                expected = alone(name, args, kwargs)
            if expected is None:
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = together(name, args, kwargs)
            assert spoken(caught) <= spoken(usual), (case, spoken(caught))
            if found is None:
                went_alone += 1
                continue
            went_together += 1
            for task in range(TASKS):
                torch.testing.assert_close(of_task(found, task), expected[task], equal_nan=True)
    assert (went_together == 0) == (name in ONE_BY_ONE)
    assert (went_alone > 0) == (name in ONE_BY_ONE | SOMETIMES_ALONE)


@pytest.mark.parametrize("name", sorted(RANDOM & KERNELS.keys()))
def test_random_operations_are_never_drawn_for_all_tasks_at_once(name: str) -> None:
    with pytest.raises(OneByOneError):
        vectorised.apply(name, (Each(torch.zeros(TASKS, 2)),), {}, CPU)


def test_a_number_is_not_rolled_into_the_neighbours() -> None:
    assert together("roll", (Each(torch.tensor([1.0, 2.0, 3.0])), 1), {}) is None


def test_a_row_selected_by_a_position_of_its_own_keeps_its_axis() -> None:
    value, places = Each(torch.arange(6.0).reshape(3, 2)), Each(torch.tensor([0, 1, 1]))
    assert together("index_select", (value, 0, places), {}) is None
    expected = alone("index_select", (value, 0, places), {})
    assert expected is not None
    assert [one.tolist() for one in expected] == [[0], [3], [5]]


def test_a_number_as_tensor_decides_no_dtype() -> None:
    mask, value = Each(torch.tensor([[True], [False], [True]])), torch.ones(1, dtype=torch.uint8)
    other = Each(torch.zeros(3, dtype=torch.int64))
    assert together("where", (mask, value, other), {}) is None
    expected = alone("where", (mask, value, other), {})
    assert expected is not None
    assert {one.dtype for one in expected} == {torch.uint8}


NUMBERS = (0.1, -0.0, 3, -5, 1 / 3, -3.715, 1e300, 1e-300, 1e39, 65520.0, 16777217, float("inf"), float("nan"), 7)
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def with_numbers(name: str, dtype: torch.dtype, device: str) -> Iterator[tuple[Any, Any]]:
    """Arithmetic with a number for each task, on either side of tensors that are their own or shared."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((), (5,), (2, 17)):
        tensors = (4 * torch.randn((TASKS, *shape), generator=generator, dtype=torch.float64)).to(device, dtype)
        for first in range(len(NUMBERS) - TASKS + 1):
            numbers = Rows(NUMBERS[first : first + TASKS])
            for tensor in (Each(tensors), tensors[0]):
                yield (tensor, numbers), alone(name, (tensor, numbers), {}, device)
                yield (numbers, tensor), alone(name, (numbers, tensor), {}, device)


def check_numbers(name: str, dtype: torch.dtype, device: str) -> None:
    went_together = 0
    for args, expected in with_numbers(name, dtype, device):
        try:
            found = vectorised.apply(name, args, {}, torch.device(device))
        except OneByOneError:
            continue
        went_together += 1
        for task in range(TASKS):
            torch.testing.assert_close(of_task(found, task), expected[task], rtol=0, atol=0, equal_nan=True)
    wanted = 2 * 4 * (len(NUMBERS) - TASKS + 1)
    assert went_together == (wanted if dtype.is_floating_point else 0)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.uint8], ids=str)
@pytest.mark.parametrize("name", sorted(ARITHMETIC))
def test_arithmetic_with_a_number_for_each_task_is_the_same_to_the_last_bit(name: str, dtype: torch.dtype) -> None:
    check_numbers(name, dtype, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", sorted(ARITHMETIC))
def test_arithmetic_with_a_number_for_each_task_is_the_same_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    check_numbers(name, dtype, "cuda")


@pytest.mark.parametrize("number", [2**53 + 1, 2**70, True, None, "a"], ids=str)
def test_what_float64_does_not_hold_exactly_goes_one_by_one(number: Any) -> None:
    with pytest.raises(OneByOneError):
        vectorised.apply("add", (Each(torch.zeros(TASKS, 2)), Rows((1, 2, number))), {}, CPU)


INDICES: list[Any] = [
    0,
    -1,
    (0, 1),
    (slice(None), 2),
    (..., 3),
    (slice(1, None), slice(None, None, 2)),
    (slice(None), slice(None), slice(-2, None)),
    Rows((0, 1, -1)),
    (slice(None), Rows((2, 0, -3))),
    (Rows((1, 0, 1)), slice(None), Rows((3, -4, 0))),
    (..., Rows((3, -4, 0))),
    (1, Rows((0, 1, 2)), slice(0, 3)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_positions_of_each_tasks_own_are_taken_in_one_step(index: Any) -> None:
    values = Each(torch.arange(72.0).reshape(3, 2, 3, 4))
    found = vectorised.apply("getitem", (values, index), {}, CPU)
    for task in range(TASKS):
        assert torch.equal(of_task(found, task), values.stacked[task][of_task(index, task)])


@pytest.mark.parametrize("index", [Rows((0, 2, 0)), (0, Rows((0, 1, -4))), (5,), (0, 0, 0, 0)], ids=str)
def test_a_position_outside_of_one_task_is_not_taken_for_any(index: Any) -> None:
    with pytest.raises((IndexError, OneByOneError)):
        vectorised.apply("getitem", (Each(torch.zeros(3, 2, 3, 4)), index), {}, CPU)


def test_other_parts_of_an_index_are_not_guessed() -> None:
    with pytest.raises(OneByOneError):
        taken(torch.zeros(3, 2), [torch.tensor(0)])
