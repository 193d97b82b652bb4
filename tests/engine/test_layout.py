"""The trial that decides how runs of a model go together."""

import pytest

from ndif_batch.engine.engine import Engine
from tests.families import FAMILIES, family, random_subject
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle

SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_that_attend_through_the_interface_are_packed(name: str) -> None:
    layout = family(name).loaded.layout
    assert layout.packed
    assert not layout.alone


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gptj", {"n_layer": 2, "n_embd": 48, "n_head": 4, "rotary_dim": 4}),
        ("bloom", {"n_layer": 2, "hidden_size": 48, "n_head": 4}),
    ],
)
def test_other_families_run_alone_and_right(name: str, config: dict[str, int]) -> None:
    own = random_subject(name, **config)
    assert not own.loaded.layout.packed
    assert own.loaded.layout.reason
    tasks = [random_task(seed, own.loaded.sites) for seed in range(8)]
    for outcome in Engine(own.loaded).run(tasks):
        assert outcome.error is None
        for save, value in oracle(own, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)


def test_soft_caps_and_attention_sinks_are_honoured() -> None:
    capped = random_subject("gemma2", **SIZES, attn_logit_softcapping=2.0)
    sinking = random_subject("gpt_oss", **SIZES, num_local_experts=4)
    assert capped.loaded.layout.packed
    assert sinking.loaded.layout.packed
