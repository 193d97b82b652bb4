"""Tiny random models of real Hugging Face families, with weights scaled up so that differences show."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import wrap

VOCABULARY = 97
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

PLAIN = {
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
HEADS = {**GROUPED, "head_dim": 12}
SLIDING = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 48, "n_head": 4, "n_positions": 64},
    "llama": GROUPED,
    "gemma3_text": {**HEADS, **SLIDING},
}
"""The families of the longest tests: learned and rotary positions, one head for each query or few, windows."""

OTHERS: dict[str, dict[str, Any]] = {
    "gpt_neox": PLAIN,
    "llama4_text": {
        **HEADS,
        "intermediate_size_mlp": 96,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 4,
    },
    "mistral": {**HEADS, "sliding_window": 4},
    "mixtral": {**HEADS, "num_local_experts": 4},
    "qwen2": GROUPED,
    "qwen2_moe": {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 48},
    "qwen3": HEADS,
    "gemma": HEADS,
    "gemma2": {**HEADS, "sliding_window": 4, "attn_logit_softcapping": 2.0},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmoe": {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "phi": GROUPED,
    "phi3": GROUPED,
    "opt": {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "word_embed_proj_dim": 48,
        "ffn_dim": 96,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "deepseek_v3": {
        **PLAIN,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 24,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
    },
    "gpt_oss": {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "cohere": GROUPED,
    "stablelm": {
        **GROUPED,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
    "starcoder2": {**GROUPED, "sliding_window": 4},
    "granite": GROUPED,
    "smollm3": HEADS,
    "glm4": HEADS,
    "gptj": {"n_layer": 3, "n_embd": 48, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "gpt_neo": {
        "num_layers": 3,
        "hidden_size": 48,
        "num_heads": 4,
        "attention_types": [[["global", "local", "global"], 1]],
        "window_size": 4,
        "max_position_embeddings": 64,
    },
    "bloom": {"n_layer": 3, "hidden_size": 48, "n_head": 4},
    "falcon": {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "new_decoder_architecture": True,
        "alibi": False,
    },
    "mamba": {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "intermediate_size": 96,
        "state_size": 8,
        "time_step_rank": 4,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "roberta": PLAIN,
    "modernbert": {
        **PLAIN,
        "local_attention": 4,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}
ALL = {**FAMILIES, **OTHERS, **ENCODERS}


@dataclass(frozen=True)
class Subject:
    """A model as the engine has it, and the same model as transformers made it."""

    loaded: LoadedModel
    native: Any


@cache
def family(name: str) -> Subject:
    """The tiny model of a family; the same one each time."""
    return random_subject(name, **ALL[name])


def random_subject(name: str, **sizes: Any) -> Subject:
    """A random model of a family with a configuration of one's own."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(name, **sizes, **TOKENS)
    factory: Any = AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM
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
