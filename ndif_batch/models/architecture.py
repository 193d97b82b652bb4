"""Which transformers class a checkpoint is, and an instance of it without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ndif_batch.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The dtype called ``name``; ``ModelError`` lists the valid ones."""
    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} cannot be used", hint=f"one of {', '.join(DTYPES)}")
    return DTYPES[name]


def read_config(directory: Path) -> PretrainedConfig:
    """The configuration of a checkpoint. Code that it may bring along is never run."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
        return config
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory} holds no model that can be read: {str(error).splitlines()[0]}") from None


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class that the checkpoint names; a causal language model if it names none."""
    for name in config.architectures or ():
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    default: Any = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if not isinstance(default, type) or not issubclass(default, PreTrainedModel):
        raise ModelError(f"there is no language model class for configurations of type {config.model_type!r}")
    return default


def empty_model(config: PretrainedConfig, dtype: str) -> PreTrainedModel:
    """The model on the meta device: every module, no weights."""
    with torch.device("meta"):
        factory: Any = model_class(config)
        model: PreTrainedModel = factory._from_config(config, dtype=torch_dtype(dtype)).eval()
    return model
