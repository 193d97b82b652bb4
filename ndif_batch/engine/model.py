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
from ndif_batch.engine.memory import free_here, measure_footprint, most
from ndif_batch.engine.norms import join_norms
from ndif_batch.engine.places import keep_frequencies_apart
from ndif_batch.engine.ranks import Ranks
from ndif_batch.engine.rotary import join_rotations
from ndif_batch.engine.split import Split
from ndif_batch.engine.trial import measure_blocks
from ndif_batch.engine.whole import come_together, empty_twin
from ndif_batch.errors import ModelError, UsageError
from ndif_batch.models.architecture import model_class, read_config, torch_dtype
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.probe import measure_empty, measure_sites
from ndif_batch.models.tokenizer import Tokenizer


class Device(StrEnum):
    """Where to put a model; ``auto`` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def wrap(module: PreTrainedModel, tokenizer: Tokenizer | None = None, ranks: Ranks | None = None) -> LoadedModel:
    """Measures a model that is in memory already. If it is split over ``ranks``, all of them do it side by side."""
    started = time.perf_counter()
    module.train(False).requires_grad_(False)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles anew for every shape, and packs have many
    keep_frequencies_apart(module)
    join_norms(module)
    join_rotations(module)
    if ranks is None:
        layout, sites = measure_layout(module, measure_sites(module))
        model = measure_blocks(LoadedModel(module, sites, layout, tokenizer))
        model = replace(model, footprint=measure_footprint(model))
    else:
        model = _split(module, tokenizer, ranks)
    return replace(model, load_seconds=time.perf_counter() - started)


def _split(module: PreTrainedModel, tokenizer: Tokenizer | None, ranks: Ranks) -> LoadedModel:
    """A model that is split, compared with itself in one piece."""
    split = Split(module, ranks)
    twin = empty_twin(module)
    sites = measure_empty(twin)
    come_together(twin, module, split.weight)
    sites = split.measure(twin, sites)
    layout, sites = measure_layout(module, sites, twin, split.wholes)
    layout = replace(layout, alone=frozenset().union(*ranks.all(layout.alone)))
    model = measure_blocks(LoadedModel(module, sites, layout, tokenizer, split=split))
    if len(set(ranks.all(str(model.layout)))) > 1:
        raise ModelError("the processes that share the model do not agree on how its runs go together")
    footprint = most(ranks.all(measure_footprint(model)))
    ranks.show_free(free_here(model))
    ranks.all(None)
    return replace(model, footprint=footprint)


def load(info: ModelInfo, device: Device | str = Device.AUTO, ranks: Ranks | None = None) -> LoadedModel:
    """Reads a model entry's safetensors onto ``device`` and measures it.

    On CUDA accelerate places the blocks: over all GPUs that are visible, what does not fit in main memory or on the
    disk beside the entry. With ``ranks`` each weight is split over them, and all of them load side by side.
    """
    started = time.perf_counter()
    model = _read(info, find_device(device)) if ranks is None else _read_split(info, ranks)
    loaded = wrap(model, info.tokenizer, ranks)
    gc.freeze()  # a model is thousands of objects that no collection needs to look at
    return replace(loaded, load_seconds=time.perf_counter() - started)


def find_device(wanted: Device | str) -> torch.device:
    """The device that is meant; ``UsageError`` if there is none."""
    try:
        choice = Device(wanted)
    except ValueError:
        raise UsageError(f"there is no device {wanted!r}", hint=f"one of {', '.join(Device)}") from None
    if choice is Device.AUTO:
        choice = Device.CUDA if torch.cuda.is_available() else Device.CPU
    if choice is Device.CUDA and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here", hint="use the device 'cpu' or 'auto'")
    return torch.device(choice)


def _read_split(info: ModelInfo, ranks: Ranks) -> PreTrainedModel:
    from ndif_batch.engine.distributed import read_split

    return read_split(info, read_config(info.weights), ranks, torch_dtype(info.dtype))


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
