"""What a GPU would die of is found before: the checks agree with what torch refuses on the CPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.bounds import CHECKS, check_index
from ndif_batch.engine.kernels import KERNELS

places = st.lists(st.integers(-5, 5), min_size=1, max_size=3).map(lambda items: torch.tensor(items))
parts = st.one_of(
    places, st.integers(0, 1), st.just(slice(None)), st.none(), st.just(...), st.just(torch.tensor([True, False]))
)


def dots(index: tuple[object, ...]) -> int:
    return sum(part is ... for part in index)


@settings(max_examples=300, deadline=None)
@given(index=st.lists(parts, min_size=1, max_size=4).map(tuple).filter(lambda parts: dots(parts) < 2))
def test_a_tensor_in_an_index_is_refused_exactly_where_torch_refuses_it(index: tuple[object, ...]) -> None:
    value = torch.zeros(2, 3, 4)
    try:
        value[index]  # type: ignore[index]
    except IndexError as error:
        if "out of bounds" in str(error) and "index" in str(error):
            with pytest.raises(IndexError):
                check_index((2, 3, 4), index)
    except (RuntimeError, TypeError):
        return
    else:
        check_index((2, 3, 4), index)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("gather", (torch.zeros(3, 4), 1, torch.tensor([[4]]))),
        ("gather", (torch.zeros(3, 4), 1, torch.tensor([[-1]]))),
        ("scatter", (torch.zeros(3), 0, torch.tensor([3]), 1.0)),
        ("scatter_add", (torch.zeros(3), 0, torch.tensor([7]), torch.ones(1))),
        ("index_select", (torch.zeros(3, 4), 0, torch.tensor([3]))),
        ("index_add", (torch.zeros(3), 0, torch.tensor([3]), torch.ones(1))),
        ("embedding", (torch.tensor([5]), torch.zeros(5, 2))),
        ("one_hot", (torch.tensor([5]), 5)),
        ("cross_entropy", (torch.zeros(2, 5), torch.tensor([1, 5]))),
    ],
)
def test_every_operation_that_follows_indices_is_checked(op: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(IndexError, match="outside a dimension of size"):
        CHECKS[op](**KERNELS[op].operation.arrange(arguments, {}))
    with pytest.raises((IndexError, RuntimeError)):
        KERNELS[op](*arguments)


def test_an_ignored_class_is_no_error() -> None:
    arguments = (torch.zeros(2, 5), torch.tensor([1, -100]))
    CHECKS["cross_entropy"](**KERNELS["cross_entropy"].operation.arrange(arguments, {}))
