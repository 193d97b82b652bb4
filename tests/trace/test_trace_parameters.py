"""Parameters: their types follow from their uses, contradictions and unused ones are errors."""

from __future__ import annotations

from typing import Any

import pytest

from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import NodeRef, ParamRef, ParamType
from ndif_batch.trace import LanguageModel, param


def types(lm: LanguageModel, use: Any) -> dict[str, ParamType]:
    with lm.trace([1, 2, 3]) as t:
        use(lm.model.layers[1].output).save("x")
    return dict(t.graph.params)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda h: h * param("p"), ParamType.FLOAT),
        (lambda h: 1 - param("p") * h, ParamType.FLOAT),
        (lambda h: h.clamp(min=param("p")), ParamType.FLOAT),
        (lambda h: h[:, param("p")], ParamType.INT),
        (lambda h: h[:, param("p") :], ParamType.INT),
        (lambda h: h[:, [param("p"), 0]], ParamType.INT),
        (lambda h: h[:, param("p") - 1], ParamType.INT),
        (lambda h: h[:, param("p")] * param("p"), ParamType.INT),
        (lambda h: h.softmax(param("p")), ParamType.INT),
        (lambda h: h.topk(param("p") + 1).values, ParamType.INT),
        (lambda h: h.sum(-1, keepdim=param("p")), ParamType.BOOL),
        (lambda h: h @ param("p", "tensor"), ParamType.TENSOR),
        (lambda h: h + param("p", "tensor")[0], ParamType.TENSOR),
        (lambda h: h[:, param("p", "tensor")], ParamType.TENSOR),
        (lambda h: h * param("p", int), ParamType.INT),
        (lambda h: h * param("p", ParamType.FLOAT), ParamType.FLOAT),
    ],
)
def test_the_use_of_a_parameter_decides_its_type(lm: LanguageModel, use: Any, expected: ParamType) -> None:
    assert types(lm, use) == {"p": expected}


def test_a_prompt_a_module_number_and_a_module_name(lm: LanguageModel) -> None:
    with lm.trace(param("text")) as t:
        lm.model.layers[param("layer")][param("part")].input.save("x")
    assert t.graph.params == {"text": ParamType.PROMPT, "layer": ParamType.INT, "part": ParamType.STR}
    assert t.graph.nodes[0].site == "model.layers.{layer}.{part}.input"
    found = t.scan(text=[1, 2], layer=2, part="mlp")
    assert found["x"].shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda lm, p: lm.model.layers[p].output * lm.lm_head.output.sum(-1, keepdim=p), "exclude each other"),
        (lambda lm, p: lm.model.layers[0].output[:, p].sum(keepdim=p), "exclude each other"),
        (lambda lm, p: lm.model.layers[0].output * p + param("p", "int") * param("p", "float"), "both int and float"),
    ],
)
def test_uses_that_exclude_each_other_are_refused(lm: LanguageModel, use: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message), lm.trace([1, 2]):
        use(lm, param("p"))


def test_a_prompt_cannot_be_a_number_too(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match=r"as a prompt .* and in arithmetic"), lm.trace(param("p")):
        lm.model.norm.output * param("p")


def test_a_given_type_wins(lm: LanguageModel) -> None:
    assert types(lm, lambda h: h[:, param("p", "tensor")] + param("p")) == {"p": ParamType.TENSOR}


def test_arithmetic_on_parameters_alone_is_recorded(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        p = param("p")
        lm.model.norm.output[:, (p + 1) // 2].save("x")
    assert [node.op for node in t.graph.nodes] == ["read", "add", "floordiv", "getitem", "save"]
    assert t.graph.nodes[1].args == (ParamRef("p"), 1)
    assert t.graph.nodes[3].args[1] == (t.graph.nodes[3].args[1][0], NodeRef(2))  # type: ignore[index]
    assert t.scan(p=3)["x"].shape == (1, 8)


def test_a_parameter_that_nothing_uses_is_an_error_that_names_its_line(lm: LanguageModel) -> None:
    reason = r"test_trace_parameters\.py:\d+: parameter 'extra' is not used"
    with pytest.raises(TraceError, match=reason), lm.trace([1, 2]):  # noqa: PT012
        param("extra")
        lm.model.norm.output.save("x")


def test_a_parameter_of_a_value_that_is_dropped_is_an_error(lm: LanguageModel) -> None:
    reason = "nothing that is saved or written uses parameter 'scale'"
    with pytest.raises(TraceError, match=reason), lm.trace([1, 2]):  # noqa: PT012
        lm.model.norm.output * param("scale")
        lm.model.norm.output.save("x")


@pytest.mark.parametrize("name", ["", "two words", "1st", "a.b", "a{b}"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(TraceError, match="is no name for a parameter"):
        param(name)


def test_words_of_run_and_submit_are_refused_as_names() -> None:
    with pytest.raises(TraceError, match="cannot be called 'seed'"):
        param("seed")


def test_an_unknown_type_says_which_there_are() -> None:
    with pytest.raises(TraceError, match=r"'integer' is no type(.|\n)*prompt, int, float"):
        param("p", "integer")


def test_a_parameter_outside_of_a_trace_computes_nothing() -> None:
    with pytest.raises(TraceError, match="nothing is being recorded here"):
        param("p") + 1
