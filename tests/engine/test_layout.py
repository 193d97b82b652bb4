"""The trial that decides how runs of a model go together."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ndif_batch.engine.engine import Engine
from tests.families import FAMILIES, TOKENS, family, subject
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle


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
    torch.manual_seed(1)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **config, **TOKENS))
    own = subject(made)
    assert not own.loaded.layout.packed
    assert own.loaded.layout.reason
    tasks = [random_task(seed, own.loaded.sites) for seed in range(8)]
    for outcome in Engine(own.loaded).run(tasks):
        assert outcome.error is None
        for save, value in oracle(own, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)


def test_soft_caps_and_attention_sinks_are_honoured() -> None:
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 64,
    }
    for name, more in [("gemma2", {"attn_logit_softcapping": 2.0}), ("gpt_oss", {"num_local_experts": 4})]:
        torch.manual_seed(1)
        made = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes, **more, **TOKENS))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(3)
        assert subject(made).loaded.layout.packed, name
