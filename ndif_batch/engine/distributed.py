"""Splits a model over ranks by transformers' plan of its class, or refuses with the reason."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig

from ndif_batch.engine.ranks import Ranks
from ndif_batch.engine.split import not_split
from ndif_batch.models.architecture import empty_model, model_class
from ndif_batch.models.info import ModelInfo


def read_split(info: ModelInfo, config: PretrainedConfig, ranks: Ranks, dtype: torch.dtype) -> PreTrainedModel:
    """Reads a model entry's safetensors, each rank its own part. ``ModelError`` if its class has no plan."""
    factory: Any = model_class(config)
    try:
        model: PreTrainedModel = factory.from_pretrained(
            str(info.weights),
            dtype=dtype,
            distributed_config=DistributedConfig(tp_size=ranks.size),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except Exception as error:
        raise not_split(error, ranks) from error
    return model


def make_split(
    config: PretrainedConfig,
    dtype: str,
    ranks: Ranks,
    device: torch.device,
    weight: Callable[[str, torch.Tensor], torch.Tensor],
) -> PreTrainedModel:
    """A model whose weights come from nowhere but ``weight``: of a name and an empty tensor it makes the whole one.

    Each rank keeps its part on ``device``, so that no more than one weight is there in one piece.
    """
    factory: Any = model_class(config)
    try:
        wanted, _, mesh = factory.prepare_distribute_model(DistributedConfig(tp_size=ranks.size))
        model: PreTrainedModel = factory.maybe_distribute_model(empty_model(deepcopy(config), dtype), wanted, mesh)
    except Exception as error:
        raise not_split(error, ranks) from error
    fill(model, lambda name, empty: device, weight)
    return model


@torch.no_grad()
def fill(
    model: PreTrainedModel,
    place: Callable[[str, torch.Tensor], torch.device],
    weight: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:
    """Gives an empty model its weights, each made by ``weight`` on the device that ``place`` says, and its buffers."""
    made: dict[int, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, empty in list(module._parameters.items()):
            if empty is None:
                continue
            full = f"{path}.{name}" if path else name
            if id(empty) not in made:
                whole = weight(full, torch.empty(empty.shape, dtype=empty.dtype, device=place(full, empty)))
                if isinstance(empty, DTensor):
                    whole = distribute_tensor(whole, empty.device_mesh, empty.placements, src_data_rank=None)
                made[id(empty)] = nn.Parameter(whole, requires_grad=False)
                made[id(made[id(empty)])] = made[id(empty)]
            module._parameters[name] = made[id(empty)]
        if module._buffers:
            for name, buffer in list(module._buffers.items()):
                if buffer is not None and buffer.is_meta:
                    full = f"{path}.{name}" if path else name
                    module._buffers[name] = torch.empty_like(buffer, device=place(full, buffer))
            if not module._parameters:
                model._init_weights(module)  # type: ignore[no-untyped-call]
    model.tie_weights()
