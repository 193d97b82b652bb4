"""Tiny random models of real Hugging Face families, with weights scaled up so that differences show."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import wrap

VOCABULARY = 97
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 48, "n_head": 4, "n_positions": 64},
    "llama": {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
    "gemma3_text": {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 64,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


@dataclass(frozen=True)
class Subject:
    """A model as the engine has it, and the same model as transformers made it."""

    loaded: LoadedModel
    native: PreTrainedModel


@cache
def family(name: str) -> Subject:
    """The tiny model of a family; the same one each time."""
    return random_subject(name, **FAMILIES[name])


def random_subject(name: str, **sizes: Any) -> Subject:
    """A random model of a family with a configuration of one's own."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(name, **sizes, **TOKENS)
    factory: Any = AutoModelForCausalLM
    model: PreTrainedModel = factory.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    native = deepcopy(model)
    native.train(False)
    return Subject(wrap(model), native)


def blocks(model: LoadedModel) -> list[str]:
    """Paths of the decoder blocks."""
    for prefix in ("model.layers", "transformer.h"):
        found = [f"{prefix}.{i}" for i in range(3) if f"{prefix}.{i}" in model.sites.modules]
        if found:
            return found
    raise LookupError("no decoder blocks")
