"""The table of operations is closed, typed and bounded, and its page lists what it holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import ITEM_BYTES, AbstractTensor
from ndif_batch.graph.nodes import NodeRef, ParamRef, SliceArg, TensorRef
from ndif_batch.graph.numbers import calculate
from ndif_batch.graph.operations import FAMILIES, OPERATIONS, RANDOM, Kind
from ndif_batch.graph.operations.joining import MAX_PIECES
from ndif_batch.graph.operations.operation import MAX_DIMENSIONS, MAX_ELEMENTS
from ndif_batch.graph.signatures import ArgType, parse_signature

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"

DESIGN = {
    Kind.BOUNDARY: {"read", "write", "grad", "weight", "tokens"},
    Kind.APPLY: {"call"},
    Kind.CONTROL: {"skip", "stop", "steps", "backward"},
    Kind.OUT: {"save", "print"},
}
PURE = """
getitem setitem add sub mul truediv floordiv mod pow neg abs eq ne lt le gt ge logical_and logical_or logical_not where
maximum minimum clamp exp log sqrt rsqrt sigmoid tanh relu gelu silu softplus sin cos round sign isnan reciprocal sum
mean var std prod max min amax amin argmax argmin any all cumsum sort topk softmax log_softmax logsumexp norm layer_norm
rms_norm matmul bmm outer einsum linear reshape view transpose permute flatten unflatten squeeze unsqueeze expand repeat
cat stack split chunk gather scatter index_select masked_fill tril triu flip roll cross_entropy kl_div cosine_similarity
cast arange zeros ones full zeros_like ones_like full_like randn rand eye one_hot normalize quantile
""".split()  # noqa: SIM905


def f(*shape: int, dtype: str = "float32") -> AbstractTensor:
    return AbstractTensor(shape, dtype)


def shape(name: str, *args: Any, **kwargs: Any) -> Any:
    return OPERATIONS[name].shape(OPERATIONS[name].bind(args, kwargs))


def test_the_table_holds_what_the_design_lists() -> None:
    for kind, names in DESIGN.items():
        assert {name for name, operation in OPERATIONS.items() if operation.kind is kind} == names
    assert set(PURE) <= {name for name, operation in OPERATIONS.items() if operation.kind is Kind.PURE}


def test_no_operation_stands_in_the_table_twice() -> None:
    assert sum(map(len, FAMILIES.values())) == len(OPERATIONS)


def test_the_page_lists_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)\(", PAGE.read_text(), flags=re.MULTILINE)) == set(OPERATIONS), "run: make docs"


def test_text_stands_only_where_its_words_are_known() -> None:
    texts = {(o.name, p.name) for o in OPERATIONS.values() for p in o.parameters if p.type is ArgType.STR}
    assert texts == {
        ("cross_entropy", "reduction"),
        ("einsum", "equation"),
        ("gelu", "approximate"),
        ("kl_div", "reduction"),
        ("mse_loss", "reduction"),
        ("quantile", "interpolation"),
    }


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("cross_entropy", (f(2, 3), f(2, 3)), {"reduction": "os"}),
        ("einsum", ("__import__('os')", f(2)), {}),
        ("gelu", (f(2),), {"approximate": "os"}),
        ("kl_div", (f(2), f(2)), {"reduction": "os"}),
        ("mse_loss", (f(2), f(2)), {"reduction": "os"}),
        ("quantile", (f(2), 0.5), {"interpolation": "os"}),
    ],
)
def test_other_words_are_refused(name: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(ShapeError, match=r"must be (one of|'none')|no einsum equation|no interpolation"):
        shape(name, *args, **kwargs)


def test_random_operations_are_marked() -> None:
    assert {"rand", "randn", "rand_like", "randn_like", "randint", "randperm"} == RANDOM


def test_read_and_its_like_say_which_fields_their_nodes_have() -> None:
    fields = {name: operation.fields for name, operation in OPERATIONS.items() if operation.fields}
    assert fields == {
        "read": ("run", "site", "step?"),
        "write": ("run", "site", "index?", "step?"),
        "weight": ("site",),
        "call": ("site",),
        "skip": ("run", "site", "step?"),
        "stop": ("run",),
        "steps": ("run",),
        "tokens": ("run",),
        "save": ("name", "dims?"),
        "print": ("name",),
    }


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_signature_reads_as_it_is_written(name: str) -> None:
    again = parse_signature(str(OPERATIONS[name]))
    assert again.name == name
    assert again.parameters == OPERATIONS[name].parameters


def test_bind_gives_every_parameter_its_value_or_default() -> None:
    assert OPERATIONS["sum"].bind((f(3), -1), {"keepdim": True}) == {
        "input": f(3),
        "dim": -1,
        "keepdim": True,
        "dtype": None,
    }
    assert OPERATIONS["sum"].bind((f(3),), (("dtype", "float64"),))["dtype"] == "float64"


def test_variadic_arguments_have_one_form() -> None:
    reshape = OPERATIONS["reshape"]
    as_tuple = reshape.bind((f(6), (2, 3)))
    assert as_tuple == reshape.bind((f(6), 2, 3)) == reshape.bind((f(6),), {"shape": (2, 3)})
    assert reshape.bind((f(6), -1))["shape"] == (-1,)
    assert OPERATIONS["einsum"].bind(("i,i", f(3), f(3)))["operands"] == (f(3), f(3))


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [
        ("exp", (), {}, "argument 'input' is missing"),
        ("exp", (f(), f()), {}, "takes 1 arguments, got 2"),
        ("softmax", (f(3),), {"axis": 0}, "has no argument 'axis'"),
        ("softmax", (f(3), 0), {"dim": 0}, "argument 'dim' is given twice"),
        ("softmax", (f(3), 0, "float32"), {}, "takes 2 arguments, got 3"),
        ("softmax", (f(3), 0.5), {}, "argument 'dim' must be an int, got 0.5"),
        ("softmax", (f(3), True), {}, "argument 'dim' must be an int, got True"),
        ("softmax", (f(3), f()), {}, r"argument 'dim' must be an int, got float32\[\]"),
        ("softmax", (2.0, 0), {}, "argument 'input' must be a tensor, got 2.0"),
        ("exp", (None,), {}, "argument 'input' must be a tensor, got nothing"),
        ("cast", (f(3), "complex64"), {}, "must be the name of a dtype"),
        ("cat", (f(3),), {}, "argument 'tensors' must be a tuple of tensors"),
        ("sum", (f(3),), {"keepdim": 1}, "argument 'keepdim' must be a bool"),
        ("getitem", (f(3), 0.5), {}, "argument 'index' must be"),
        ("getitem", (f(3), SliceArg(0.5)), {}, "argument 'index' must be"),
        ("add", ("a", 1), {}, "argument 'input' must be a tensor or a number"),
    ],
)
def test_bind_says_what_is_wrong(name: str, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OPERATIONS[name].bind(args, kwargs)


def test_references_may_stand_for_tensors_and_numbers() -> None:
    for reference in (NodeRef(0), ParamRef("x")):
        OPERATIONS["topk"].bind((reference, reference), {"dim": reference})
        OPERATIONS["getitem"].bind((reference, (SliceArg(reference), reference, (0, reference))))
        OPERATIONS["reshape"].bind((reference, 1, reference))
        OPERATIONS["cat"].bind(((reference, TensorRef("0")),))
    with pytest.raises(ValueError, match="a dtype"):
        OPERATIONS["cast"].bind((NodeRef(0), NodeRef(1)))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("zeros", (2**16, 2**16), "elements; at most"),
        ("zeros", (0, 2**62), "elements; at most"),
        ("arange", (MAX_ELEMENTS + 1,), "elements are more than"),
        ("arange", (-1e308, 1e308), "elements are more than"),
        ("expand", (f(1), 2**40), "elements; at most"),
        ("repeat", (f(2**20), 2**20), "elements; at most"),
        ("outer", (f(2**20), f(2**20)), "elements; at most"),
        ("one_hot", (f(4, dtype="int64"), 2**40), "elements; at most"),
        ("reshape", (f(1), (1,) * (MAX_DIMENSIONS + 1)), "dimensions; at most"),
        ("split", (f(MAX_PIECES + 1), 1), "pieces are more than"),
        ("unbind", (f(MAX_PIECES + 1),), "pieces are more than"),
        ("chunk", (f(0), MAX_PIECES + 1), "pieces are more than"),
        ("einsum", ("i,j->ij", f(2**16), f(2**16)), "product of the first 2 operands has more than"),
        ("einsum", ("i,j,k->", f(2**12), f(2**12), f(2**12)), None),
        ("einsum", ("ai,aj,ij->a", f(1, 2**16), f(1, 2**16), f(2**16, 2**16)), "product of the first 2 operands"),
        ("einsum", (",".join(["i"] * 9), *[f(2)] * 9), "at most 8 operands, not 9"),
        ("einsum", ("i" * 200, f(2)), "no einsum equation of at most 128 characters"),
    ],
)
def test_results_are_bounded(name: str, args: Any, message: str | None) -> None:
    if message is None:
        assert shape(name, *args) == f()
        return
    with pytest.raises(ShapeError, match=message):
        shape(name, *args)


@pytest.mark.parametrize(
    ("name", "operands", "message"),
    [
        ("pow", (10, 10**18), "64 bits"),
        ("pow", (-2, 64), "64 bits"),
        ("pow", (0, -1), "zero"),
        ("pow", (-8, 0.5), "no real number"),
        ("pow", (1e300, 2), "64 bits"),
        ("mul", (2**62, 2), "64 bits"),
        ("neg", (-(2**63),), "64 bits"),
        ("truediv", (1, 0), "zero"),
        ("mod", (1, 0), "zero"),
    ],
)
def test_arithmetic_on_numbers_is_bounded(name: str, operands: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=f"(?i){message}"):
        calculate(name, *operands)


def test_powers_that_fit_are_computed() -> None:
    assert calculate("pow", 2, 62) == 2**62
    assert calculate("pow", -1, 10**9) == 1
    assert calculate("pow", 1, 10**18) == 1
    assert calculate("pow", 2, -1) == 0.5


dims = st.integers(0, 4)
tensors = st.builds(AbstractTensor, st.lists(dims, max_size=4).map(tuple), st.sampled_from(sorted(ITEM_BYTES)))
whole = st.integers(-4, 4) | st.sampled_from([2**62, -(2**63), 2**31])
numbers = whole | st.floats() | st.booleans()
slices = st.builds(SliceArg, st.none() | whole, st.none() | whole, st.none() | whole)
index_items = whole | slices | tensors | st.none() | st.just(...) | st.booleans()
STRATEGIES: dict[ArgType, st.SearchStrategy[Any]] = {
    ArgType.TENSOR: tensors,
    ArgType.OPERAND: tensors | numbers,
    ArgType.NUMBER: numbers,
    ArgType.INT: whole,
    ArgType.INTS: whole | st.lists(whole, max_size=3).map(tuple),
    ArgType.BOOL: st.booleans(),
    ArgType.STR: st.sampled_from(["none", "mean", "sum", "ij,jk->ik", "...i,...i", "linear", "tanh"]),
    ArgType.DTYPE: st.sampled_from(sorted(ITEM_BYTES)),
    ArgType.TENSORS: st.lists(tensors, max_size=3).map(tuple),
    ArgType.INDEX: index_items | st.lists(index_items | st.lists(whole, max_size=2).map(tuple), max_size=4).map(tuple),
    ArgType.VALUE: tensors | numbers | st.lists(tensors | numbers, max_size=3).map(tuple),
}
BINDABLE = sorted(name for name, operation in OPERATIONS.items() if operation.kind is Kind.PURE)


@pytest.mark.parametrize("name", BINDABLE)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rules_give_a_value_or_a_shape_error_whatever_they_get(name: str, data: st.DataObject) -> None:
    operation = OPERATIONS[name]
    bound = {}
    for parameter in operation.parameters:
        strategy = STRATEGIES[parameter.type]
        bound[parameter.name] = data.draw(strategy | st.none() if parameter.default is None else strategy)
    operation.check(bound)
    try:
        result = operation.shape(bound)
    except ShapeError:
        return
    assert operation.cost(bound, result) >= 0
    for tensor in result if isinstance(result, tuple) else (result,):
        assert not isinstance(tensor, AbstractTensor) or tensor.size <= MAX_ELEMENTS
