"""A session records its traces as one graph, in which later ones use what earlier ones have read."""

from __future__ import annotations

import pytest

from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import NodeRef
from ndif_batch.trace import LanguageModel, param
from tests.site_maps import info, llama


def test_traces_of_a_session_are_runs_of_one_graph(lm: LanguageModel) -> None:
    with lm.session() as s:
        with lm.trace("one"):
            first = lm.model.layers[0].output[0, -1].save("first")
        with lm.trace(param("prompt")):
            lm.model.layers[1].output[0, -1] = first
            lm.lm_head.output[0, -1].save("logits")
        with lm.trace() as t, t.invoke("three"):
            lm.model.layers[1].output[0, -1] += first
            lm.lm_head.output[0, -1].save("third")
    with lm.trace() as flat:
        with flat.invoke("one"):
            first = lm.model.layers[0].output[0, -1].save("first")
        with flat.invoke(param("prompt")):
            lm.model.layers[1].output[0, -1] = first
            lm.lm_head.output[0, -1].save("logits")
        with flat.invoke("three"):
            lm.model.layers[1].output[0, -1] += first
            lm.lm_head.output[0, -1].save("third")
    assert s.graph == flat.graph
    assert [run.name for run in s.graph.runs] == ["run0", "prompt", "run2"]
    write = next(node for node in s.graph.nodes if node.op == "write")
    assert isinstance(write.args[0], NodeRef)
    assert s.graph.nodes[write.args[0].node].op == "getitem"
    with pytest.raises(TraceError, match="part of a session"):
        _ = t.graph


def test_a_generation_is_a_trace_of_a_session_as_any_other(lm: LanguageModel) -> None:
    with lm.session() as s:
        with lm.trace("one"):
            steer = lm.model.layers[0].output[0, -1]
        with lm.generate("two", max_new_tokens=3) as t:
            with t.iter[1:]:
                lm.model.layers[0].output[0, -1] += steer
            t.tokens.save("tokens")
    assert [node.run for node in s.graph.nodes if node.op == "steps"] == [1]


def other_model() -> LanguageModel:
    return LanguageModel(info(llama(layers=2, width=8, mlp=16, keys=4, vocabulary=50)))


def test_what_cannot_be_part_of_a_session_is_told(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="traces of a session are of one model"), lm.session():
        other_model().trace("one").__enter__()
    with pytest.raises(TraceError, match="inside an invoke"), lm.session() as s, s.invoke("one"):
        lm.trace("two").__enter__()
    with pytest.raises(TraceError, match="a trace inside a trace"), lm.session():
        lm.session().__enter__()
    with pytest.raises(TraceError, match="inside an invoke"), lm.session(), lm.trace("one"):
        lm.trace("two").__enter__()
    with pytest.raises(TraceError, match="a trace inside a trace"), lm.trace("one"):
        lm.trace("two").__enter__()
    with pytest.raises(TraceError, match="nothing is saved"), lm.session(), lm.trace("one"):
        pass


def broken(lm: LanguageModel) -> None:
    with lm.trace("one"):
        lm.model.layers[0].output.save("x")
        raise ZeroDivisionError


def test_a_trace_that_is_left_by_an_error_leaves_no_session_behind(lm: LanguageModel) -> None:
    with lm.session() as s:
        with pytest.raises(ZeroDivisionError):
            broken(lm)
        with lm.trace("two"):
            lm.model.layers[1].output.save("y")
    with pytest.raises(TraceError, match="left by an error: that of a trace in it"):
        _ = s.graph
    with lm.trace("again"):
        lm.model.layers[0].output.save("x")
