"""Prompts of tensors: the runs of a pass lie one behind the other on the axis of the batch, each with one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from ndif_batch.graph.nodes import Inputs


@dataclass(frozen=True, slots=True)
class Given:
    """The tensors of a prompt, which are among ``constants``: equal if they are the same ones."""

    inputs: Inputs
    constants: Mapping[str, torch.Tensor] = field(compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    def tensor(self, name: str) -> torch.Tensor:
        """One of them, ``[1, …]``, where the constants are."""
        return self.constants[self.inputs.digests[name]]


Prompted: TypeAlias = tuple[int, ...] | Given
"""What a run of a pass begins with: token ids, or tensors."""
TRIAL_ITEMS = 3


def stacked(prompts: Sequence[Given], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Each input of some runs, ``[runs, …]``; numbers that are no whole ones are of the model's ``dtype``."""
    found = {}
    for name in prompts[0].inputs.digests:
        tensor = torch.cat([prompt.tensor(name) for prompt in prompts])
        wanted = dtype if tensor.is_floating_point() else torch.bool if tensor.dtype == torch.bool else torch.int64
        found[name] = tensor.to(device, wanted)
    return found


def trial_items(example: Mapping[str, torch.Tensor]) -> list[Given]:
    """Different prompts that are like an ``example``: with noise in it, or its whole numbers in another order."""
    generator = torch.Generator().manual_seed(0)
    constants: dict[str, torch.Tensor] = {}
    items = []
    for number in range(TRIAL_ITEMS):
        digests = {name: f"{name}-{number}" for name in example}
        constants |= {digests[name]: _like(own.cpu(), generator) for name, own in example.items()}
        items.append(Given(Inputs.of(digests), constants))
    return items


def _like(example: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if example.is_floating_point():
        return example + torch.randn(example.shape, generator=generator).to(example.dtype)
    order = torch.randperm(example.numel(), generator=generator)
    return example.flatten()[order].reshape(example.shape)
