"""A model that is split over ranks as if it were whole: each module's weights come together while it computes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ndif_batch.models.probe import entry_device


def empty_twin(model: PreTrainedModel) -> PreTrainedModel:
    """The same model on the meta device, not split."""
    config = deepcopy(model.config)
    if hasattr(config, "distributed_config"):
        del config.distributed_config
    factory: Any = type(model)
    with torch.device("meta"):
        twin: PreTrainedModel = factory._from_config(config, dtype=model.dtype).eval()
    return twin


def come_together(twin: PreTrainedModel, model: PreTrainedModel, weight: Callable[[str], torch.Tensor]) -> None:
    """Lets an empty twin compute as ``model`` would in one piece; ``weight`` gives each weight whole.

    All ranks have to run it side by side.
    """
    for path, buffer in model.named_buffers():
        owner, _, name = path.rpartition(".")
        twin.get_submodule(owner)._buffers[name] = buffer
    for path, module in twin.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            _borrow(module, path, weight)
    embedding: Any = twin.get_input_embeddings()
    embedding._hf_hook = SimpleNamespace(execution_device=entry_device(model))


def _borrow(module: nn.Module, path: str, weight: Callable[[str], torch.Tensor]) -> None:
    empty = {name: own for name, own in module._parameters.items() if own is not None}

    def fetch(module: nn.Module, args: tuple[Any, ...]) -> None:
        for name in empty:
            found = weight(f"{path}.{name}" if path else name)
            module._parameters[name] = nn.Parameter(found, requires_grad=False)

    def give_back(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        module._parameters.update(empty)

    module.register_forward_pre_hook(fetch)
    module.register_forward_hook(give_back)
