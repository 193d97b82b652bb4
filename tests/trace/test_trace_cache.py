"""``t.cache()``: the outputs of many modules at once, saved under their paths."""

from __future__ import annotations

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.errors import TraceError
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel, param
from tests.families import family
from tests.oracle import oracle
from tests.recording import recorder


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_every_block_is_saved_under_its_path_as_a_tensor(name: str) -> None:
    subject = family(name)
    lm = recorder(subject)
    with lm.trace([5, 6, 7]) as t:
        cached = t.cache()
    blocks = [f"{'model.layers' if name == 'llama' else 'transformer.h'}.{i}" for i in range(3)]
    assert list(cached) == blocks
    task = Task(t.graph)
    (outcome,) = Engine(subject.loaded).run([task])
    truth = oracle(subject, task)
    assert sorted(outcome.saves) == [f"{block}.output" for block in blocks]
    for save, value in outcome.saves.items():
        assert value.shape == (1, 3, 48)
        torch.testing.assert_close(value, truth[save], rtol=1e-4, atol=1e-4)


def test_modules_are_chosen_and_runs_told_apart(lm: LanguageModel) -> None:
    with lm.trace() as t:
        for name in ("clean", "corrupted"):
            with t.invoke(param(name)):
                cached = t.cache(modules=[lm.model.layers[1].mlp, lm.lm_head])
        assert (cached["lm_head"] * 2).save("double") is not None
    assert list(t.graph.saves()) == [
        "clean.model.layers.1.mlp.output",
        "clean.lm_head.output",
        "corrupted.model.layers.1.mlp.output",
        "corrupted.lm_head.output",
        "double",
    ]


def test_a_cache_without_a_run_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match="no invoke is open"), lm.trace() as t:
        t.cache()
