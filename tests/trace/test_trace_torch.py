"""torch's functions and tensor methods are recorded for every operation of the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  torch's own abbreviation

from ndif_batch.errors import TraceError
from ndif_batch.graph.operations import OPERATIONS, Kind, Operation
from ndif_batch.graph.signatures import REQUIRED, ArgType
from ndif_batch.trace import LanguageModel
from ndif_batch.trace.functions import ALIASES, RESULTS
from tests.site_maps import info, llama

LM = LanguageModel(info(llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50)))
TENSORS = (ArgType.TENSOR, ArgType.OPERAND, ArgType.TENSORS, ArgType.VALUE)
PLAIN = {ArgType.NUMBER: 2.0, ArgType.INT: 1, ArgType.INTS: (1, 0), ArgType.STR: "ij,kj->ik"}
OWN = ("getitem", "setitem", "clone")
"""Recorded in their own way."""


def takes_tensors(operation: Operation) -> bool:
    return any(parameter.type in TENSORS for parameter in operation.parameters)


PURE = [row for row in OPERATIONS.values() if row.kind is Kind.PURE and takes_tensors(row) and row.name not in OWN]
FUNCTIONS = [row for row in PURE if hasattr(torch, row.name) or hasattr(F, row.name)]
METHODS = [row for row in FUNCTIONS if hasattr(torch.Tensor, row.name) and row.parameters[0].type in TENSORS]


def arguments(operation: Operation, value: Any) -> list[Any]:
    """Something of the right type for every argument that must be given."""
    required = [p for p in operation.parameters if p.default is REQUIRED]
    return [
        (value, value) if p.type is ArgType.TENSORS else value if p.type in TENSORS else PLAIN[p.type] for p in required
    ]


def recorded(call: Any) -> tuple[str, Any, Any]:
    with LM.trace([1, 2]) as t:
        call(LM.lm_head.output).save("x")
    node = next(node for node in t.graph.nodes if node.op not in ("read", "save"))
    return node.op, node.args, node.kwargs


def operation_of(call: Any) -> str:
    return recorded(call)[0]


@pytest.mark.parametrize("row", FUNCTIONS, ids=lambda row: row.name)
def test_a_function_of_torch_is_recorded_under_its_name(row: Operation) -> None:
    function = getattr(torch, row.name, None) or getattr(F, row.name)
    spread = row.name == "einsum"

    def call(value: Any) -> Any:
        given = arguments(row, value)
        return function(given[0], *given[1]) if spread else function(*given)

    op, args, _ = recorded(call)
    assert op == row.name
    assert len(args) == len([p for p in row.parameters if p.default is REQUIRED])


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_a_method_is_recorded_as_the_function_is(row: Operation) -> None:
    def method(value: Any) -> Any:
        first, *rest = arguments(row, value)
        return getattr(first, row.name)(*rest)

    op, args, kwargs = recorded(method)
    assert op == row.name
    assert kwargs == ()
    assert len(args) == len([p for p in row.parameters if p.default is REQUIRED])


def test_almost_every_operation_has_a_function_in_torch_and_the_others_are_known() -> None:
    others = {row.name for row in PURE} - {row.name for row in FUNCTIONS}
    assert others == {"truediv", "floordiv", "mod", "cast", "expand", "expand_as", "repeat", "size", "view"}


@pytest.mark.parametrize(("other", "name"), ALIASES.items())
def test_other_names_lead_to_operations_that_exist(other: str, name: str) -> None:
    assert other not in OPERATIONS
    assert OPERATIONS[name].kind is Kind.PURE


def test_operations_with_several_results_exist() -> None:
    assert set(RESULTS) <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda h: torch.div(h, 2), "truediv"),
        (lambda h: torch.linalg.vector_norm(h, ord=2, dim=-1), "norm"),
        (lambda h: torch.special.expit(h), "sigmoid"),
        (lambda h: torch.clip(h, 0, 1), "clamp"),
        (lambda h: torch.concat([h, h], -1), "cat"),
        (lambda h: h.swapaxes(0, 1), "transpose"),
        (lambda h: h.half(), "cast"),
        (lambda h: h.to("cpu", torch.float64), "cast"),
        (lambda h: h.to(dtype=torch.float64), "cast"),
        (lambda h: h.where(h > 0, 0.0), "gt"),
        (lambda h: torch.ones(50) @ h.mT, "transpose"),
        (lambda h: F.cross_entropy(h[0], torch.tensor([1, 2]), reduction="sum"), "getitem"),
        (lambda h: abs(h), "abs"),
        (lambda h: round(h, 2), "round"),
        (lambda h: ~(h > 0), "gt"),
    ],
)
def test_other_spellings_are_recorded(call: Any, name: str) -> None:
    assert operation_of(call) == name


@pytest.mark.parametrize(
    "same", [lambda h: h.cpu(), torch.clone, lambda h: h.contiguous(), lambda h: h.to("cuda"), lambda h: +h]
)
def test_what_changes_nothing_records_nothing(same: Any) -> None:
    with LM.trace([1, 2]) as t:
        same(LM.lm_head.output).save("x")
    assert [node.op for node in t.graph.nodes] == ["read", "save"]


def test_defaults_that_torch_fills_in_are_left_out() -> None:
    assert recorded(lambda h: F.softmax(h, dim=-1))[2] == ()
    assert recorded(lambda h: F.gelu(h, approximate="none"))[2] == ()
    assert recorded(lambda h: F.gelu(h, approximate="tanh"))[2] == (("approximate", "tanh"),)
    assert recorded(lambda h: F.kl_div(h, h, reduction="sum", log_target=True))[2] == (
        ("log_target", True),
        ("reduction", "sum"),
    )


def test_an_option_that_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(TraceError, match="softmax: has no argument 'half_to_float'"), LM.trace([1, 2]):
        LM.lm_head.output.softmax(-1, half_to_float=True)
    with pytest.raises(TraceError, match="has no argument 'size_average'"), LM.trace([1, 2]):
        F.cross_entropy(LM.lm_head.output[0], torch.tensor([1, 2]), size_average=True)
