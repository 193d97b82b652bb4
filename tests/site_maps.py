"""Site maps written by hand, as a probe would measure them: no weights, no torch."""

from __future__ import annotations

from pathlib import Path

from ndif_batch.graph.sites import Site, SiteMap, SiteTensor, SiteValue
from ndif_batch.models.info import ModelInfo

TOKENS = SiteTensor((1, None), "int64")


class Builder:
    """Collects modules in order of definition and sites in order of execution."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.sites: dict[str, Site] = {}
        self.weights: dict[str, tuple[tuple[int, ...], str]] = {}

    def group(self, path: str) -> None:
        self.modules.append(path)

    def module(self, path: str, takes: SiteValue, gives: SiteValue, *weight: int) -> None:
        self.modules.append(path)
        self.call(path, takes, gives)
        if weight:
            self.weights[f"{path}.weight"] = (weight, "float32")

    def call(self, path: str, takes: SiteValue, gives: SiteValue) -> None:
        for name, value in (("input", takes), ("output", gives)):
            site = f"{path}.{name}"
            refused = "it holds no tensor" if value is None else None
            self.sites[site] = Site(site, len(self.sites), value, refused)

    def attention(self, path: str, heads: int, width: int) -> None:
        """The sites inside a module that computes attention: of those the weights and the heads."""
        shapes = {"pattern": SiteTensor((1, heads, None, None), "float32", seen=3)}
        shapes["heads"] = SiteTensor((1, None, heads, width // heads), "float32")
        for name, value in shapes.items():
            self.sites[f"{path}.{name}"] = Site(f"{path}.{name}", len(self.sites), value)

    def site_map(self, vocabulary: int, max_tokens: int, head: str) -> SiteMap:
        return SiteMap(self.sites, tuple(self.modules), self.weights, vocabulary, max_tokens, head)


def stream(width: int) -> SiteTensor:
    return SiteTensor((1, None, width), "float32")


def llama(
    layers: int, width: int, mlp: int, keys: int, vocabulary: int, max_tokens: int = 2048, heads: int | None = None
) -> SiteMap:
    """A Llama: blocks give a plain tensor, attention a tuple."""
    made, h = Builder(), stream(width)
    made.group("model")
    made.module("model.embed_tokens", TOKENS, h, vocabulary, width)
    made.group("model.layers")
    for layer in range(layers):
        block = f"model.layers.{layer}"
        made.module(block, h, h)
        made.module(f"{block}.self_attn", h, (h, None))
        made.module(f"{block}.self_attn.q_proj", h, h, width, width)
        made.module(f"{block}.self_attn.k_proj", h, stream(keys), keys, width)
        made.module(f"{block}.self_attn.v_proj", h, stream(keys), keys, width)
        if heads is not None:
            made.attention(f"{block}.self_attn", heads, width)
        made.module(f"{block}.self_attn.o_proj", h, h, width, width)
        made.module(f"{block}.mlp", h, h)
        made.module(f"{block}.mlp.gate_proj", h, stream(mlp), mlp, width)
        made.module(f"{block}.mlp.up_proj", h, stream(mlp), mlp, width)
        made.module(f"{block}.mlp.down_proj", stream(mlp), h, width, mlp)
        made.module(f"{block}.mlp.act_fn", stream(mlp), stream(mlp))
        made.module(f"{block}.input_layernorm", h, h, width)
        made.module(f"{block}.post_attention_layernorm", h, h, width)
    made.module("model.norm", h, h, width)
    made.module("model.rotary_emb", None, None)
    made.module("lm_head", h, stream(vocabulary), vocabulary, width)
    return made.site_map(vocabulary, max_tokens, "lm_head")


def smollm2() -> SiteMap:
    """SmolLM2-135M."""
    return llama(layers=30, width=576, mlp=1536, keys=192, vocabulary=49152, max_tokens=8192, heads=9)


def gpt2(layers: int = 3, width: int = 8, vocabulary: int = 50, heads: int | None = None) -> SiteMap:
    """A GPT-2 of the older kind, whose blocks give tuples."""
    made, h = Builder(), stream(width)
    made.group("transformer")
    made.module("transformer.wte", TOKENS, h, vocabulary, width)
    made.group("transformer.h")
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        made.module(block, h, (h,))
        made.module(f"{block}.ln_1", h, h, width)
        made.module(f"{block}.attn", h, (h, None))
        if heads is not None:
            made.attention(f"{block}.attn", heads, width)
        made.module(f"{block}.attn.c_proj", h, h, width, width)
        made.module(f"{block}.mlp", h, h)
        made.module(f"{block}.mlp.c_proj", stream(4 * width), h, 4 * width, width)
    made.module("transformer.ln_f", h, h, width)
    made.module("lm_head", h, stream(vocabulary), vocabulary, width)
    return made.site_map(vocabulary, 64, "lm_head")


def info(sites: SiteMap, name: str = "by-hand") -> ModelInfo:
    """An entry of a model that lies nowhere and has no tokenizer: prompts are token ids."""
    nowhere = Path("/nonexistent")
    return ModelInfo(name, "here", nowhere, nowhere, "r1", "d" * 64, "float32", sites)
