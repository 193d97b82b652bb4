"""``lm.edit()``: writes with which every run of an edited model begins."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel, param
from tests.families import family
from tests.recording import recorder

SUBJECT = family("llama")


def outcome(graph: Graph, constants: Any = None, **bindings: Any) -> dict[str, torch.Tensor]:
    (found,) = Engine(SUBJECT.loaded).run([Task(graph, bindings)], constants=constants or {})
    assert found.error is None, found.error
    return dict(found.saves)


def halved(tokens: list[int], **options: Any) -> Any:
    """What the model of transformers gives with half of what its second MLP puts out."""
    native: Any = SUBJECT.native
    native.generation_config.eos_token_id = None
    handle = native.get_submodule("model.layers.1.mlp").register_forward_hook(lambda module, args, out: out * 0.5)
    try:
        if options:
            return native.generate(torch.tensor([tokens]), do_sample=False, pad_token_id=0, **options)[0, len(tokens) :]
        return native(torch.tensor([tokens])).logits
    finally:
        handle.remove()


def half(lm: LanguageModel) -> LanguageModel:
    with lm.edit() as edited:
        lm.model.layers[1].mlp.output *= 0.5
    return edited


def test_every_run_of_an_edited_model_begins_with_the_edit_and_the_model_itself_stays() -> None:
    lm = recorder(SUBJECT)
    edited = half(lm)
    for prompt in ([5, 6, 7], [9, 3]):
        with edited.trace() as t:
            with t.invoke(param("prompt")):
                edited.lm_head.output.save("logits")
            with t.invoke([1, 2]):
                lm.lm_head.output.save("beside")
        saves = outcome(t.graph, prompt=tuple(prompt))
        torch.testing.assert_close(saves["logits"], halved(prompt), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(saves["beside"], halved([1, 2]), rtol=1e-4, atol=1e-4)
    with lm.trace([5, 6, 7]) as t:
        lm.lm_head.output.save("logits")
    plain = SUBJECT.native(torch.tensor([[5, 6, 7]])).logits
    torch.testing.assert_close(outcome(t.graph)["logits"], plain, rtol=1e-4, atol=1e-4)


def test_what_a_trace_does_comes_after_the_edit_and_edits_add_up() -> None:
    lm = recorder(SUBJECT)
    with half(lm).edit() as twice:
        lm.model.layers[1].mlp.output += torch.ones(48)
    with twice.trace([5, 6, 7]) as t:
        output = lm.model.layers[1].mlp.output.save("edited")
        lm.model.layers[1].mlp.output[:] = 2 * output - 2
        lm.lm_head.output.save("logits")
    with lm.trace([5, 6, 7]) as plain:
        lm.model.layers[1].mlp.output.save("output")
        lm.lm_head.output.save("logits")
    saves, wanted = outcome(t.graph, t.constants), outcome(plain.graph)
    torch.testing.assert_close(saves["edited"], wanted["output"] / 2 + 1, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(saves["logits"], wanted["logits"], rtol=1e-4, atol=1e-4)


def test_an_edit_is_made_at_every_step_of_a_generation() -> None:
    with half(recorder(SUBJECT)).generate([5, 6, 7], max_new_tokens=6) as t:
        t.tokens.save("tokens")
    assert outcome(t.graph)["tokens"].tolist() == halved([5, 6, 7], max_new_tokens=6).tolist()


def test_an_edit_only_writes_and_is_the_same_for_all() -> None:
    lm = recorder(SUBJECT)
    with pytest.raises(TraceError, match="an edit only writes; 'save'"), lm.edit():
        lm.lm_head.output.save("x")
    with pytest.raises(TraceError, match="no parameters"), lm.edit():
        lm.model.layers[param("layer")].output[:] = 0
    with pytest.raises(TraceError, match="nothing is written"), lm.edit():
        lm.lm_head.output[0]
