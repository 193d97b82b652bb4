"""A patching problem on random weights, for machines that reach no package index: the same work, without meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.protocol import Problem

LLAMA_1B: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32_000,
}
"""About the shape of Llama 3.2 1B, with a smaller vocabulary."""

TOKENS = 24
SPREAD = 0.06
"""Standard deviation of the weights: three times the usual, so that a patch changes the logits clearly."""


def random_problem(folder: Path, device: str, threads: int, shape: dict[str, Any] = LLAMA_1B) -> Problem:
    """Patching in a Llama with random weights, which is written to ``folder``; the prompts differ in one token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ndif_batch.models import source

    torch.manual_seed(0)
    config = LlamaConfig(**shape, initializer_range=SPREAD)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder / "weights")
    info = source.add(str(folder / "weights"), "random-llama", folder)
    clean = torch.randint(3, shape["vocab_size"], (TOKENS,)).tolist()
    corrupted = list(clean)
    corrupted[TOKENS // 2] = clean[0]
    return Problem(
        weights=str(info.weights),
        entry=str(info.directory),
        layers=shape["num_hidden_layers"],
        clean=clean,
        corrupted=corrupted,
        answer=5,
        distractor=7,
        device=device,
        threads=threads,
    )
