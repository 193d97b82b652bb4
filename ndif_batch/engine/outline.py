"""What can be said of a model before its weights are loaded: enough to plan passes with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ndif_batch.engine.blocks import Block, Moments, births_of, find_blocks, last_before_head
from ndif_batch.engine.layout import Layout
from ndif_batch.engine.loaded import Footprint
from ndif_batch.engine.memory import footprint_by_shapes
from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap
from ndif_batch.models.architecture import model_class, read_config
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class AssumedModel:
    """A model that is not loaded. Its ``layout`` is what its class promises; the one that is measured may differ."""

    sites: SiteMap
    layout: Layout
    tokenizer: Tokenizer | None = None
    footprint: Footprint = Footprint()


def assume(info: ModelInfo) -> AssumedModel:
    """The model of an entry, from its site map and its configuration."""
    model = AssumedModel(info.sites, _layout(info), info.tokenizer)
    return replace(model, footprint=footprint_by_shapes(model))


def _layout(info: ModelInfo) -> Layout:
    """As it will be found at loading, if the model keeps to what its class says of its attention."""
    sites = info.sites
    head = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
    plain = Moments(narrow=None if head is None else head.order)
    packed, causal = _promised(info)
    if not packed:
        return Layout(packed=False, reason="its attention cannot be replaced", moments=plain)
    paths = find_blocks(sites)
    if not paths:
        return Layout(packed=True, moments=plain)
    births = births_of(paths, sites)
    blocks = tuple(Block(path, None, None) for path in paths)
    return Layout(
        packed=True,
        moments=Moments(births, births[-1] + 1, causal),
        blocks=blocks,
        last=last_before_head(paths, sites),
    )


def _promised(info: ModelInfo) -> tuple[bool, bool]:
    """Whether the model's class lets its attention be replaced, and whether it is causal.

    An entry whose configuration cannot be read is taken for a causal model of that kind.
    """
    try:
        found = model_class(read_config(info.weights))
    except ModelError:
        return True, True
    packed = found._can_set_attn_implementation() and found._supports_attention_backend
    return bool(packed), found.__name__.endswith(("ForCausalLM", "LMHeadModel"))
