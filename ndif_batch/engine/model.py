"""Puts a model on a device and measures it."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from enum import StrEnum
from typing import Any

import torch
from transformers import PreTrainedModel

from ndif_batch.engine.layout import measure_layout
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.memory import measure_footprint
from ndif_batch.engine.places import keep_frequencies_apart
from ndif_batch.engine.trial import measure_blocks
from ndif_batch.errors import UsageError
from ndif_batch.models.architecture import model_class, read_config, torch_dtype
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.probe import measure_sites
from ndif_batch.models.tokenizer import Tokenizer


class Device(StrEnum):
    """Where to put a model; ``auto`` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def wrap(module: PreTrainedModel, tokenizer: Tokenizer | None = None) -> LoadedModel:
    """Measures a model that is in memory already."""
    started = time.perf_counter()
    module.train(False).requires_grad_(False)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles anew for every shape, and packs have many
    keep_frequencies_apart(module)
    layout, sites = measure_layout(module, measure_sites(module))
    model = measure_blocks(LoadedModel(module, sites, layout, tokenizer))
    return replace(model, footprint=measure_footprint(model), load_seconds=time.perf_counter() - started)


def load(info: ModelInfo, device: Device | str = Device.AUTO) -> LoadedModel:
    """Reads a model entry's safetensors onto ``device`` and measures it.

    On CUDA accelerate places the blocks: over all GPUs that are visible, what does not fit in main memory or on the
    disk beside the entry.
    """
    started = time.perf_counter()
    loaded = wrap(_read(info, _device(device)), info.tokenizer)
    gc.freeze()  # a model is thousands of objects that no collection needs to look at
    return replace(loaded, load_seconds=time.perf_counter() - started)


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
