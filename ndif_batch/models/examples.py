"""Example inputs of models that take images, or images and text, as their configuration and processor tell."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap
from ndif_batch.models.info import PREPROCESSOR
from ndif_batch.models.inputs import IDS, MASK, PIXELS
from ndif_batch.models.probe import measure_empty
from ndif_batch.models.stacking import measure_empty_stacking


def measure_entry(model: PreTrainedModel, directory: Path) -> SiteMap:
    """The site map of a model in ``directory`` on the meta device, whatever it takes."""
    if takes_images(type(model)):
        text = getattr(model.config, "text_config", None)
        sites = measure_empty_stacking(model, example_inputs(model, directory))
        return sites if text is None else replace(sites, vocabulary=text.vocab_size)
    return measure_empty(model)


def takes_images(model_class: type[PreTrainedModel]) -> bool:
    """Whether a model needs images: its main input is that, or it compares them with texts."""
    if model_class.main_input_name == PIXELS:
        return True
    taken = inspect.signature(model_class.forward).parameters
    return PIXELS in taken and IDS in taken and not model_class.can_generate()


def example_inputs(model: PreTrainedModel, directory: Path) -> dict[str, torch.Tensor]:
    """One item of each input of a model in ``directory``: ``[1, …]``.

    Images are as large as the image processor makes them, or as the configuration says; texts are as long as can be.
    """
    config: Any = model.config
    vision, text = getattr(config, "vision_config", config), getattr(config, "text_config", None)
    height, width = _size(directory, vision)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, getattr(vision, "num_channels", 3), height, width, generator=generator)
    example = {PIXELS: pixels}
    if text is not None:
        example[IDS] = torch.arange(text.max_position_embeddings)[None] % text.vocab_size
        if takes_mask(directory):
            example[MASK] = torch.ones_like(example[IDS])
    return dict(sorted(example.items()))


def takes_mask(directory: Path) -> bool:
    """Whether the tokenizer of a model gives a mask of its padding."""
    names = _json(directory / "tokenizer_config.json").get("model_input_names", [MASK])
    return MASK in names


def _size(directory: Path, config: PretrainedConfig) -> tuple[int, int]:
    """Height and width of the images that a model takes."""
    processor = _json(directory / PREPROCESSOR)
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    found = cropped or processor.get("size") or getattr(config, "image_size", None)
    if isinstance(found, int):
        return found, found
    if isinstance(found, list | tuple) and len(found) == 2:
        return int(found[0]), int(found[1])
    if isinstance(found, Mapping) and {"height", "width"} <= found.keys():
        return int(found["height"]), int(found["width"])
    if isinstance(found, Mapping) and "shortest_edge" in found:
        return int(found["shortest_edge"]), int(found["shortest_edge"])
    raise ModelError(
        f"neither {PREPROCESSOR} nor the configuration says how large images are", hint="add the model's processor"
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
