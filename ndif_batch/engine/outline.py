"""What can be said of a model before its weights are loaded: enough to plan passes with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ndif_batch.engine.blocks import Block, Moments, births_of, find_blocks, last_before_head
from ndif_batch.engine.layout import Arrangement, Layout
from ndif_batch.engine.loaded import DECODERS_ALONE, Footprint
from ndif_batch.engine.memory import footprint_by_shapes
from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap, tensors_of
from ndif_batch.models.architecture import model_class, read_config
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class AssumedModel:
    """A model that is not loaded. Its ``layout`` is what its class promises; the one that is measured may differ."""

    sites: SiteMap
    layout: Layout
    tokenizer: Tokenizer | None = None
    footprint: Footprint = field(default_factory=Footprint)

    @property
    def generates_not(self) -> str | None:
        """Why it cannot generate, if so."""
        if self.sites.inputs is not None or self.sites.decoder_start is not None:
            return DECODERS_ALONE
        return None if self.layout.moments.causal else "its tokens see those that come after them"


def assume(info: ModelInfo) -> AssumedModel:
    """The model of an entry, from its site map and its configuration."""
    if info.sites.inputs is None:
        packed, causal = _promised(info)
        layout = assumed_layout(info.sites, packed=packed, causal=causal)
    else:
        layout = assumed_stacking(info.sites)
    model = AssumedModel(info.sites, layout, info.tokenizer)
    return replace(model, footprint=footprint_by_shapes(model))


def assumed_layout(sites: SiteMap, *, packed: bool, causal: bool) -> Layout:
    """As it will be found at loading, if the model keeps to what its class says of its attention."""
    head = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
    plain = Moments(narrow=None if head is None else head.order)
    if not packed:
        return Layout(Arrangement.ROWS, "its attention cannot be replaced", moments=plain)
    paths = find_blocks(sites)
    if not paths:
        return Layout(Arrangement.PACKED, moments=plain)
    births = births_of(paths, sites)
    blocks = tuple(Block(path, None, None) for path in paths)
    return Layout(
        Arrangement.PACKED,
        moments=Moments(births, births[-1] + 1, causal),
        blocks=blocks,
        last=last_before_head(paths, sites),
    )


def assumed_stacking(sites: SiteMap) -> Layout:
    """The same of a model that takes tensors: stacked, if one of its sites has been seen to be."""
    values = [tensor for site in sites.sites.values() for _, tensor in tensors_of(site.value)]
    if not any(tensor.token_axes for tensor in values):
        return Layout(Arrangement.ALONE, "it takes one item at a time")
    alone = {
        (site.path, items)
        for site in sites.sites.values()
        for items, tensor in tensors_of(site.value)
        if len(tensor.token_axes) != 1
    }
    return Layout(Arrangement.STACKED, alone=frozenset(alone))


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
