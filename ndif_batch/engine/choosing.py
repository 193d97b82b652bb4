"""How the next token is chosen from a run's last logits: as transformers' ``generate`` does it, for each task alone."""

from __future__ import annotations

from hashlib import blake2b

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ndif_batch.graph.steps import Choice


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The first of the largest of ``[…, vocabulary]`` logits, ``[…, 1]``."""
    return logits.float().argmax(-1, keepdim=True)


def drawn(logits: torch.Tensor, choice: Choice, generator: torch.Generator) -> torch.Tensor:
    """A token of ``[vocabulary]`` logits, ``[1]``; on the CPU, so that a seed means the same token on every device."""
    scores = logits.float().cpu()[None]
    if choice.temperature is not None:
        scores = TemperatureLogitsWarper(float(choice.temperature))(None, scores)
    if choice.top_k is not None:
        scores = TopKLogitsWarper(choice.top_k)(None, scores)
    if choice.top_p is not None and choice.top_p < 1:
        scores = TopPLogitsWarper(float(choice.top_p))(None, scores)
    return torch.multinomial(torch.softmax(scores, -1), 1, generator=generator)[0]


def generator_of(seed: int, *places: int) -> torch.Generator:
    """Random numbers by a task's seed, its node and, in a generation, the step: never by a neighbour or the device."""
    name = "/".join(map(str, (seed, *places))).encode()
    return torch.Generator().manual_seed(int.from_bytes(blake2b(name, digest_size=7).digest()))
