"""The models that are measured: SmolLM2 with its weights, and others of which only the shape matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family keeps its decoder blocks, and the module inside a block whose input are the MLP's neurons."""

    blocks: str
    neurons: str


FAMILIES = {"llama": Family("model.layers", "mlp.down_proj"), "gpt2": Family("transformer.h", "mlp.c_proj")}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder; ``tokens`` is how long a prompt of the patching sweep is.

    ``spread`` is the standard deviation of random weights: three times the usual, so that an intervention changes the
    logits clearly; the usual where many layers would make noise of rounding.
    """

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int
    tokens: int
    spread: float = 0.06

    def config(self, layers: int | None = None) -> dict[str, Any]:
        """Arguments of the family's configuration in transformers."""
        layers = layers or self.layers
        special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": self.vocabulary}
        if self.family == "gpt2":
            return {"n_layer": layers, "n_embd": self.width, "n_head": self.heads, "n_inner": self.mlp, **special}
        sizes = {"hidden_size": self.width, "intermediate_size": self.mlp, "num_hidden_layers": layers}
        heads = {"num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads}
        return {**sizes, **heads, "max_position_embeddings": 8192, "rope_theta": 500_000.0, **special}


SMOLLM2 = "smollm2"

SHAPES = {
    SMOLLM2: Shape("llama", 30, 576, 9, 3, 1536, 49_152, tokens=17),
    "gpt2-small": Shape("gpt2", 12, 768, 12, 12, 3072, 50_257, tokens=18),
    "llama-1b": Shape("llama", 16, 2048, 32, 8, 8192, 128_256, tokens=24),
    "llama-8b": Shape("llama", 32, 4096, 32, 8, 14_336, 128_256, tokens=24),
    "llama-70b": Shape("llama", 80, 8192, 64, 8, 28_672, 128_256, tokens=24, spread=0.02),
    "llama-small": Shape("llama", 8, 256, 8, 4, 704, 2048, tokens=12),
    "llama-tiny": Shape("llama", 2, 64, 4, 2, 128, 256, tokens=6),
    "gpt2-tiny": Shape("gpt2", 2, 64, 4, 4, 256, 256, tokens=6),
}
"""By name: the demonstration model, four that people study, and three for the measuring of overhead and for tests."""
