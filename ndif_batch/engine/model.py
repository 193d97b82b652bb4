"""Puts a model on a device and measures it."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ndif_batch.engine.bounds import guard_tables
from ndif_batch.engine.given import trial_items
from ndif_batch.engine.layout import measure_layout, measure_stacked
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.memory import free_here, measure_footprint, most
from ndif_batch.engine.norms import join_norms
from ndif_batch.engine.places import keep_frequencies_apart
from ndif_batch.engine.ranks import Ranks
from ndif_batch.engine.rotary import join_rotations
from ndif_batch.engine.split import Split
from ndif_batch.engine.trial import measure_blocks
from ndif_batch.engine.whole import come_together, empty_twin
from ndif_batch.errors import IntegrityError, ModelError, UsageError
from ndif_batch.models.architecture import model_class, read_config, torch_dtype
from ndif_batch.models.entry_points import registered
from ndif_batch.models.examples import example_inputs
from ndif_batch.models.info import ENTRY, ModelInfo
from ndif_batch.models.probe import measure_empty, measure_sites
from ndif_batch.models.stacking import Tensors, measure_stacking
from ndif_batch.models.tokenizer import Tokenizer


class Device(StrEnum):
    """Where to put a model; ``auto`` is CUDA where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def wrap(
    module: nn.Module,
    tokenizer: Tokenizer | None = None,
    ranks: Ranks | None = None,
    example: Tensors | None = None,
) -> LoadedModel:
    """Measures a model that is in memory already. If it is split over ``ranks``, all of them do it side by side.

    ``example`` is one item of each input, ``[1, …]``, of a model that does not run on token ids.
    """
    started = time.perf_counter()
    module.train(False).requires_grad_(False)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles anew for every shape, and packs have many
    if example is not None:
        model = _stacked(module, tokenizer, example)
    else:
        assert isinstance(module, PreTrainedModel)
        keep_frequencies_apart(module)
        join_norms(module)
        join_rotations(module)
        model = _of_tokens(module, tokenizer, ranks)
    return replace(model, load_seconds=time.perf_counter() - started)


def _of_tokens(module: PreTrainedModel, tokenizer: Tokenizer | None, ranks: Ranks | None) -> LoadedModel:
    if ranks is not None:
        return _split(module, tokenizer, ranks)
    layout, sites = measure_layout(module, measure_sites(module))
    model = measure_blocks(LoadedModel(module, sites, layout, tokenizer))
    return replace(model, footprint=measure_footprint(model))


def _stacked(module: nn.Module, tokenizer: Tokenizer | None, example: Tensors) -> LoadedModel:
    """A model that takes tensors."""
    guard_tables(module)
    sites = measure_stacking(module, example)
    items = trial_items(example)
    model = measure_blocks(LoadedModel(module, sites, measure_stacked(module, sites, items), tokenizer), items)
    return replace(model, footprint=measure_footprint(model, items))


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
    """Reads a model entry's safetensors onto ``device``, or has a package make its model there, and measures it.

    On CUDA accelerate places the blocks: over all GPUs that are visible, what does not fit in main memory or on the
    disk beside the entry. With ``ranks`` each weight is split over them, and all of them load side by side.
    """
    started = time.perf_counter()
    if ranks is not None and info.sites.inputs is not None:
        raise UsageError(f"model {info.name!r} takes tensors; its weights are not split over processes")
    example: Tensors | None = None
    if info.source.startswith(ENTRY):
        model, example = _registered(info, find_device(device))
    elif ranks is not None:
        model = _read_split(info, ranks)
    else:
        read = _read(info, find_device(device))
        model, example = read, None if info.sites.inputs is None else example_inputs(read, info.weights)
    loaded = wrap(model, info.tokenizer, ranks, example)
    gc.freeze()  # a model is thousands of objects that no collection needs to look at
    return replace(loaded, load_seconds=time.perf_counter() - started)


def _registered(info: ModelInfo, device: torch.device) -> tuple[nn.Module, Tensors]:
    """The model of an installed package, if it is the one that was added."""
    found = registered(info.source)
    if found.digest != info.digest:
        raise IntegrityError(
            f"model {info.name!r}: {info.source} has other weights here than where it was added",
            hint="install the version of its package that was added, or add the model under another name",
        )
    return found.module.to(device, torch_dtype(info.dtype)), found.example


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
