"""Tiny random models that take images, or images and text, or anything: with weights in which differences show."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ndif_batch import blobs
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Inputs
from ndif_batch.models.examples import example_inputs
from tests.families import Subject

SIZE, PATCH, PLACES = 16, 4, 17
"""Pixels of an image's side, of a patch's, and how many places a ViT has: its patches and the class token."""
VOCABULARY, WORDS = 97, 6

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
EYES = {**SMALL, "image_size": SIZE, "patch_size": PATCH}
TEXT = {
    **SMALL,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": WORDS,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", {**EYES, "num_labels": 5}),
    "dinov2": ("Dinov2Model", {**EYES, "mlp_ratio": 2}),
    "deit": ("DeiTModel", EYES),
    "clip": ("CLIPModel", {"text_config": TEXT, "vision_config": EYES, "projection_dim": 12}),
    "siglip": ("SiglipModel", {"text_config": TEXT, "vision_config": EYES}),
    "swin": (
        "SwinModel",
        {
            "image_size": SIZE,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
        },
    ),
    "resnet": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "image_size": SIZE},
    ),
}


@cache
def pictured(name: str) -> Subject:
    """The tiny model of a family; the same one each time."""
    model, example = random_model(name)
    native = deepcopy(model)
    return Subject(wrap(model, example=example), native)


def random_model(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model and example inputs of it."""
    torch.manual_seed(11)
    kind, sizes = CONFIGS[name]
    factory: Any = getattr(transformers, kind)
    model = factory(factory.config_class(**sizes)).train(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model, example_inputs(model, Path("nowhere"))


class Sums(nn.Module):
    """Two numbers an item; ``shared`` sees all items of a batch, ``folded`` has two rows of each in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.shared = nn.Softmax(0)
        self.folded = nn.Identity()
        self.last = nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        both = self.first(left) * right[:, None]
        self.shared(both[:, 0])
        rows = self.folded(both.reshape(-1, 4)).reshape(both.shape)
        out: torch.Tensor = self.last(rows.sum(1))
        return out


class OneAtATime(nn.Module):
    """A model that takes no two items."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(row).view(1, 4).tanh())
        return out


SUMS = {"left": torch.ones(1, 2, 4), "right": torch.ones(1, 4)}
ONE = {"row": torch.ones(1, 4)}


@cache
def plain_module(kind: type[nn.Module]) -> Subject:
    """A module of no library, as the engine has it."""
    torch.manual_seed(5)
    module = kind().train(False)
    native = deepcopy(module)
    return Subject(wrap(module, example=SUMS if kind is Sums else ONE), native)


def prompts(subject: Subject, count: int, seed: int = 0) -> tuple[list[Inputs], dict[str, torch.Tensor]]:
    """So many random prompts of a model, and their tensors by digest."""
    generator = torch.Generator().manual_seed(seed)
    constants: dict[str, torch.Tensor] = {}

    def digest(name: str, shape: tuple[int, ...], dtype: str) -> str:
        if name == "attention_mask":
            tensor = torch.ones(shape, dtype=torch.int64)
            tensor[:, int(torch.randint(2, WORDS + 1, (), generator=generator)) :] = 0
        elif dtype == "int64":
            tensor = torch.randint(3, VOCABULARY, shape, generator=generator)
            tensor[:, -1] = 2
        else:
            tensor = torch.randn(shape, generator=generator)
        found = blobs.digest(blobs.encode(tensor))
        constants[found] = tensor
        return found

    taken = subject.loaded.sites.inputs or {}
    made = [Inputs.of({name: digest(name, one.at(1), one.dtype) for name, one in taken.items()}) for _ in range(count)]
    return made, constants
