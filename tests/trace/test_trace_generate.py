"""``lm.generate``: what a generation records, and what it refuses."""

import pytest

from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import Node, NodeRef, ParamRef, ParamType, SliceArg
from ndif_batch.trace import LanguageModel, param
from tests.site_maps import info, llama

SITE = "model.layers.1.output"


@pytest.fixture
def lm() -> LanguageModel:
    return LanguageModel(info(llama(layers=2, width=8, mlp=16, keys=4, vocabulary=50)))


def test_steps_options_and_tokens_are_recorded(lm: LanguageModel) -> None:
    with lm.generate([1, 2], max_new_tokens=4, temperature=param("heat"), stop=[3, 4]) as t:
        t.tokens.save("tokens")
    assert t.graph.nodes[0] == Node("steps", (4,), (("stop", (3, 4)), ("temperature", ParamRef("heat"))), run=0)
    assert [node.op for node in t.graph.nodes[1:]] == ["tokens", "save"]
    assert t.graph.params == {"heat": ParamType.FLOAT}


def test_a_block_of_steps_touches_sites_at_all_of_them(lm: LanguageModel) -> None:
    with lm.generate([1, 2], max_new_tokens=4) as t:
        with t.iter[1:]:
            lm.model.layers[1].output[:, -1] += 1.0
        lm.model.layers[1].output.save("prompt")
    own = [(node.op, node.step) for node in t.graph.nodes if node.site == SITE]
    assert own == [("read", SliceArg(1)), ("write", SliceArg(1)), ("read", None)]


def test_a_loop_over_steps_touches_sites_one_by_one(lm: LanguageModel) -> None:
    with lm.generate([1, 2], max_new_tokens=4) as t:
        for step in t.iter[1:3]:
            lm.model.layers[1].output[0, 0].save(f"step{step}")
    assert [node.step for node in t.graph.nodes if node.op == "read"] == [1, 2]
    assert {name: tensor.shape for name, tensor in t.scan().items()} == {"step1": (8,), "step2": (8,)}


def test_what_was_read_at_one_step_is_not_what_is_read_at_another(lm: LanguageModel) -> None:
    with lm.generate([1, 2], max_new_tokens=4) as t:
        first = lm.model.layers[1].output
        with t.iter[2]:
            (lm.model.layers[1].output[0, -1] - first[0, -1]).save("difference")
    difference = next(node for node in t.graph.nodes if node.op == "sub")
    items = [t.graph.nodes[arg.node] for arg in difference.args if isinstance(arg, NodeRef)]
    reads = [t.graph.nodes[arg.node] for node in items for arg in node.args if isinstance(arg, NodeRef)]
    assert [node.step for node in reads] == [2, None]


def test_a_run_of_which_only_the_prompts_pass_is_needed_generates_nothing(lm: LanguageModel) -> None:
    with lm.generate(max_new_tokens=4) as t:
        with t.invoke([1, 2]):
            hidden = lm.model.layers[0].output[0, -1]
        with t.invoke([3, 4]):
            lm.model.layers[0].output[0, -1] = hidden
            t.tokens.save("tokens")
    assert [(node.op, node.run) for node in t.graph.nodes if node.op == "steps"] == [("steps", 1)]


def test_steps_without_a_generation_are_refused(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="generates nothing"), lm.trace([1, 2]) as t, t.iter[1:]:
        lm.model.layers[1].output.save("x")
