"""What cannot be recorded is refused at once, with the user's file and line and what to use instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ndif_batch.errors import TraceError
from ndif_batch.trace import LanguageModel, param
from tests.site_maps import gpt2, info


def branch(h: Any) -> None:
    if h.sum() > 0:
        h.save("x")


def loop(h: Any) -> None:
    for row in h:
        row.save("x")


def unpack(h: Any) -> None:
    _a, _b = h


REFUSED: list[tuple[Callable[[Any], object], str, str]] = [
    (branch, "`if`, `while`", "torch.where"),
    (lambda h: h and 1, "`if`, `while`", "param"),
    (loop, "a loop or unpacking", "parameter axis"),
    (unpack, "a loop or unpacking", "steps"),
    (lambda h: 1.0 in h, "`in` needs", "any()"),
    (len, "len()", "t.scan"),
    (int, "int()", ".save"),
    (float, "float()", ".save"),
    (lambda h: range(h), "range()", ".save"),
    (lambda h: [1, 2][h], "range()", ".save"),
    (np.asarray, "numpy needs", "torch's functions"),
    (lambda h: h.item(), ".item is not known", ".save"),
    (lambda h: h.tolist(), ".tolist is not known", ".save"),
    (lambda h: h.numpy(), ".numpy is not known", ".save"),
    (lambda h: h.dtype, ".dtype is not known", ".to(dtype)"),
    (lambda h: h.ndim, ".ndim is not known", "from the end"),
    (lambda h: h.grad, "no gradient before .backward()", "call .backward()"),
    (lambda h: h.sum().grad, "only what was read at a site", "take the .grad of the site"),
    (lambda h: h[[0]].grad, "only what was read at a site", "index that"),
    (lambda h: h.backward(torch.ones(2)), "begins with a scalar", ".sum()"),
    (lambda h: h.sum().backward(create_graph=True), "gradients have no gradients", ".sum()"),
    (lambda h: (h.sum().backward(), h.grad.zero_()), "it is a gradient", ".clone()"),
    (lambda h: setattr(h, "grad", h), "cannot be replaced on its way", "is a value"),
    (lambda h: h.sofmax(-1), "no method 'sofmax'", "'softmax'"),
    (lambda h: torch.svd(h), "'svd' is no operation", "operations"),
    (lambda h: torch.nn.functional.dropout(h), "'dropout' is no operation", "operations"),
    (lambda h: h.softmax(), "argument 'dim' is missing", "softmax(input: tensor, dim: int"),
    (lambda h: h.softmax("last"), "argument 'dim' must be an int, got 'last'", "softmax("),
    (lambda h: h.mean(dims=1), "has no argument 'dims'", "mean("),
    (lambda h: h + object(), "cannot stand in a graph", "plain numbers"),
    (lambda h: h.save(), "needs a name", '.save("logits")'),
    (lambda h: h.save("two words"), "is no name for a value", "letters"),
    (lambda h: h.save("x").save("x"), "two values are saved as 'x'", "own name"),
    (lambda h: h.to(h), ".to(another value)", "torch.float32"),
    (lambda h: torch.ones(2).add_(h), "a tensor of your own cannot be changed", "compute a new value"),
    (lambda h: torch.ones(2).__setitem__(0, h), "a tensor of your own cannot be changed", "compute a new value"),
]


@pytest.mark.parametrize(("use", "message", "hint"), REFUSED)
def test_what_needs_a_value_now_is_refused(
    lm: LanguageModel, use: Callable[[Any], object], message: str, hint: str
) -> None:
    with pytest.raises(TraceError) as caught, lm.trace([1, 2]):
        use(lm.model.norm.output)
    assert __file__ in str(caught.value)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_the_error_names_the_very_line(lm: LanguageModel) -> None:
    first = inspect.getsourcelines(branch)[1]
    with pytest.raises(TraceError) as caught, lm.trace([1, 2]):
        branch(lm.model.norm.output)
    assert caught.value.message.startswith(f"{__file__}:{first + 1}: ")


def test_a_site_needs_an_open_trace_and_an_open_invoke(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match=r"nothing is being recorded here(.|\n)*lm\.trace"):
        lm.model.norm.output  # noqa: B018
    with pytest.raises(TraceError, match=r"no invoke is open(.|\n)*t\.invoke"), lm.trace():
        lm.model.norm.output  # noqa: B018


def test_invokes_and_traces_do_not_nest(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="an invoke inside an invoke"), lm.trace() as t, t.invoke([1]), t.invoke([2]):
        pass
    with pytest.raises(TraceError, match="has its one prompt already"), lm.trace([1]) as t, t.invoke([2]):
        pass
    with pytest.raises(TraceError, match="a trace inside a trace"), lm.trace([1]), lm.trace([2]):
        pass


def test_a_refused_inner_trace_leaves_the_outer_one_open(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        with pytest.raises(TraceError, match="a trace inside a trace"), lm.trace([2]):
            pass
        lm.model.norm.output.save("x")
    assert list(t.graph.saves()) == ["x"]


def test_an_error_of_the_user_passes_untouched_and_leaves_no_graph(lm: LanguageModel) -> None:
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught, lm.trace([1, 2]) as t:  # noqa: PT012
        lm.model.norm.output.save("x")
        raise mine
    assert caught.value is mine
    with pytest.raises(TraceError, match="there is no graph: the block that records it is left by an error"):
        t.graph  # noqa: B018
    with lm.trace([1, 2]) as again:
        lm.model.norm.output.save("x")
    assert len(again.graph.nodes) == 2


def test_an_error_inside_an_invoke_closes_it(lm: LanguageModel) -> None:
    with lm.trace() as t:
        with pytest.raises(ValueError, match="mine"), t.invoke([1]):
            raise ValueError("mine")
        with t.invoke([2]):
            lm.model.norm.output.save("x")
    assert len(t.graph.runs) == 2


def test_there_is_no_graph_before_the_end(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="the block that records it is open"), lm.trace([1]) as t:
        t.graph  # noqa: B018


def test_a_trace_is_recorded_once(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        lm.model.norm.output.save("x")
    with pytest.raises(TraceError, match="recorded before"), t:
        pass


def test_a_trace_that_saves_nothing_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match=r"test_trace_errors\.py:\d+: nothing is saved"), lm.trace([1, 2]):
        lm.model.norm.output[:] = 0.0


def test_values_and_modules_stay_within_their_trace_and_model(lm: LanguageModel) -> None:
    with lm.trace([1, 2]):
        old = lm.model.norm.output.save("x")
    with pytest.raises(TraceError, match="a value of another trace"), lm.trace([1, 2]):
        lm.model.norm.output + old
    with pytest.raises(TraceError, match="nothing is being recorded"):
        old + 1
    other = LanguageModel(info(gpt2()))
    with pytest.raises(TraceError, match="a module of another model"), lm.trace([1, 2]):
        other.lm_head.output  # noqa: B018


def test_a_value_of_a_finished_trace_cannot_be_looked_at_further(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        old = lm.model.norm.output.save("x")
    before = t.graph
    uses: list[Callable[[Any], object]] = [
        lambda v: v[0],
        lambda v: v.save("y"),
        lambda v: v.clone(),
        lambda v: v.sum(),
    ]
    for use in uses:
        with pytest.raises(TraceError, match="nothing is being recorded"):
            use(old)
    assert t.graph == before


@pytest.mark.parametrize("prompt", [[], 3, [[1, 2]], ["a", "b"], object()])
def test_a_bad_prompt_is_refused_and_closes_the_trace(lm: LanguageModel, prompt: Any) -> None:
    with pytest.raises(TraceError, match=r"is no prompt|has no tokens"), lm.trace(prompt):
        pass
    with lm.trace([1, 2]) as t:
        lm.model.norm.output.save("x")
    assert t.graph.runs[0].prompt == (1, 2)


def test_two_invokes_cannot_have_one_name(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="two invokes are called 'a'"), lm.trace() as t:  # noqa: PT012
        with t.invoke([1], name="a"):
            pass
        with t.invoke([2], name="a"):
            pass


def test_what_validation_finds_names_the_line_that_recorded_it(lm: LanguageModel) -> None:
    with pytest.raises(TraceError) as caught, lm.trace([1, 2]):
        lm.model.norm.output.save("x", dims=("a b",))
    assert f"{__file__}:{inspect.currentframe().f_lineno - 1}: " in caught.value.message  # type: ignore[union-attr]
    assert "dims" in caught.value.message


def test_a_parameter_is_no_choice_of_python_either(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="`if`, `while`"), lm.trace([1, 2]):  # noqa: PT012
        if param("layer") > 3:
            pass
