"""A real model that is tiny: two layers with random weights, and the tokenizer of whole words."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests import toy

NAME = "tiny"


def write(directory: Path, key_value_heads: int = 1) -> Path:
    """A checkpoint; the same weights each time."""
    toy.write_tokenizer(directory)
    config = LlamaConfig(
        vocab_size=toy.VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory
