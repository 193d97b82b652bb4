"""A model with its weights on a device, and what was measured of it: its sites and the layout that it can take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import torch
from accelerate.utils import align_module_device, has_offloaded_params
from torch import nn
from transformers import PreTrainedModel

from ndif_batch.engine.layout import Layout, measure_layout
from ndif_batch.errors import UsageError
from ndif_batch.graph.sites import SiteMap
from ndif_batch.models.architecture import model_class, read_config, torch_dtype
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.probe import entry_device, measure_sites
from ndif_batch.models.tokenizer import Tokenizer


class Device(StrEnum):
    """Where to put a model; ``auto`` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run. ``load_seconds`` is what reading and probing took."""

    module: PreTrainedModel
    sites: SiteMap
    layout: Layout
    tokenizer: Tokenizer | None = None
    load_seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return entry_device(self.module)

    @cached_property
    def spread(self) -> bool:
        """Whether its weights lie on several devices, or on the disk."""
        return len({parameter.device for parameter in self.module.parameters()}) > 1

    @property
    def gpus(self) -> int:
        """How many devices compute; on a CPU one."""
        computing = {parameter.device for parameter in self.module.parameters() if parameter.device.type == "cuda"}
        return max(1, len(computing))

    @property
    def device_name(self) -> str:
        """What computes: the name of the GPU, or ``cpu``."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def submodule(self, path: str) -> nn.Module:
        """The module at ``path``."""
        return self.module.get_submodule(path)

    def weight(self, path: str) -> torch.Tensor:
        """The parameter at ``path``, fetched if it rests in main memory or on the disk until it is needed."""
        owner = self.submodule(path.rpartition(".")[0])
        with align_module_device(owner):
            weight = self.module.get_parameter(path)
            return weight.detach().clone() if has_offloaded_params(owner) else weight


def wrap(module: PreTrainedModel, tokenizer: Tokenizer | None = None) -> LoadedModel:
    """Measures a model that is in memory already."""
    started = time.perf_counter()
    module.train(False).requires_grad_(False)
    layout, sites = measure_layout(module, measure_sites(module))
    return LoadedModel(module, sites, layout, tokenizer, time.perf_counter() - started)


def load(info: ModelInfo, device: Device | str = Device.AUTO) -> LoadedModel:
    """Reads a model entry's safetensors onto ``device`` and measures it.

    On CUDA accelerate places the blocks: over all GPUs that are visible, what does not fit in main memory or on the
    disk beside the entry.
    """
    started = time.perf_counter()
    loaded = wrap(_read(info, _device(device)), info.tokenizer)
    return LoadedModel(loaded.module, loaded.sites, loaded.layout, loaded.tokenizer, time.perf_counter() - started)


def _device(wanted: Device | str) -> torch.device:
    try:
        choice = Device(wanted)
    except ValueError:
        raise UsageError(f"there is no device {wanted!r}", hint=f"one of {', '.join(Device)}") from None
    if choice is Device.AUTO:
        choice = Device.CUDA if torch.cuda.is_available() else Device.CPU
    if choice is Device.CUDA and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here", hint="use the device 'cpu' or 'auto'")
    return torch.device(choice)


def _read(info: ModelInfo, device: torch.device) -> PreTrainedModel:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    factory: Any = model_class(read_config(info.weights))
    model: PreTrainedModel = factory.from_pretrained(
        str(info.weights),
        dtype=torch_dtype(info.dtype),
        device_map="auto" if device.type == "cuda" else {"": device},
        offload_folder=str(info.directory / "offload"),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    return model
