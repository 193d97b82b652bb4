"""A model with its weights on a device, and what was measured of it: its sites and the layout that it can take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import nn

from ndif_batch.engine.layout import Layout
from ndif_batch.engine.split import Split
from ndif_batch.graph.sites import SiteMap
from ndif_batch.models.probe import entry_device
from ndif_batch.models.tokenizer import Tokenizer

DECODERS_ALONE = "this version generates with decoders alone, from tokens"


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a pass takes beside the weights: in any case, for a token in blocks, for a position in the head.

    With gradients each block keeps ``kept`` for a token until the way back, of which ``entering`` is what goes in.
    ``cached`` are a token's keys and values in all blocks, where a run generates.
    """

    fixed: float = 0
    token: float = 0
    position: float = 0
    kept: float = 0
    entering: float = 0
    cached: float = 0


class Outline(Protocol):
    """What planning needs of a model: not its weights."""

    @property
    def sites(self) -> SiteMap:
        """Where graphs can touch it."""

    @property
    def layout(self) -> Layout:
        """How its runs go together."""

    @property
    def footprint(self) -> Footprint:
        """What its passes take."""

    @property
    def generates_not(self) -> str | None:
        """Why it cannot generate, if so."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What makes tokens of text, if it has that."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run. ``load_seconds`` is what reading and probing took.

    ``split`` is there if its weights are split over ranks, of which this process is one.
    """

    module: nn.Module
    sites: SiteMap
    layout: Layout
    tokenizer: Tokenizer | None = None
    load_seconds: float = 0.0
    footprint: Footprint = Footprint()
    split: Split | None = None

    @property
    def device(self) -> torch.device:
        """Where inputs go in."""
        return entry_device(self.module)

    @cached_property
    def spread(self) -> bool:
        """Whether its weights lie on several devices, or on the disk."""
        return len({parameter.device for parameter in self.module.parameters()}) > 1

    @cached_property
    def devices(self) -> tuple[torch.device, ...]:
        """The GPUs that compute in this process, in the order in which a pass meets them; none on a CPU."""
        found = dict.fromkeys(parameter.device for parameter in self.module.parameters())
        return tuple(device for device in found if device.type == "cuda")

    @property
    def generates_not(self) -> str | None:
        """Why it cannot generate, if so."""
        if self.split is not None:
            return "this version does not generate with weights that are split over processes"
        if self.sites.inputs is not None or self.sites.decoder_start is not None:
            return DECODERS_ALONE
        causal = self.layout.moments.causal and self.module.can_generate()  # type: ignore[operator]
        return None if causal else "its tokens see those that come after them"

    @property
    def gpus(self) -> int:
        """How many devices compute; on a CPU one."""
        return max(1, len(self.devices)) * (1 if self.split is None else self.split.ranks.size)

    @property
    def device_name(self) -> str:
        """What computes: the name of the GPU, or ``cpu``."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def without_borrowing(self) -> LoadedModel:
        """The model in a layout in which each changed run computes all of its tokens, from the written block on."""
        return replace(self, layout=replace(self.layout, moments=replace(self.layout.moments, causal=False)))

    def submodule(self, path: str) -> nn.Module:
        """The module at ``path``."""
        return self.module.get_submodule(path)

    def weight(self, path: str) -> torch.Tensor:
        """The parameter at ``path``, fetched if it rests in main memory, on the disk or on other ranks."""
        if self.split is not None:
            return self.split.weight(path)
        owner = self.submodule(path.rpartition(".")[0])
        with align_module_device(owner):
            weight = self.module.get_parameter(path)
            return weight.detach().clone() if has_offloaded_params(owner) else weight
