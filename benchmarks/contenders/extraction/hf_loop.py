"""Hugging Face alone, one prompt at a time: what a researcher writes first."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from contenders.extraction.reading import Prompts, extract_all, reading
from contenders.models import load_model
from contenders.protocol import read


@torch.inference_mode()
def extract(model: Any, layer: int, prompts: Prompts) -> torch.Tensor:
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        states = model(ids, output_hidden_states=True, use_cache=False).hidden_states
        found.append(states[layer + 1][0, -1])
    return torch.stack(found).float().cpu()


if __name__ == "__main__":
    problem = read()
    model = load_model(problem.subject)
    extract_all(problem, partial(extract, model, reading(problem).layer), ["torch", "transformers"])
