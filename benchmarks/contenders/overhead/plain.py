"""PyTorch alone: one forward pass over all prompts as rows, then each task's chain. Without nodes: the pure forward."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from contenders.models import blocks, load_model
from contenders.overhead.chain import Chains, chain, chains, compute_all
from contenders.protocol import Subject, read


@torch.inference_mode()
def compute(subject: Subject, model: Any, given: Chains, nodes: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = blocks(subject, model)[-1].register_forward_hook(lambda _block, _args, output: seen.append(output[:, -1]))
    model.base_model(torch.tensor(given.prompts, device=subject.device), use_cache=False)
    handle.remove()
    if not nodes:
        return seen[0].float().cpu()
    found = [chain(vector, scale, nodes) for vector, scale in zip(seen[0], given.scales, strict=True)]
    return torch.stack(found).float().cpu()


if __name__ == "__main__":
    problem = read()
    model = load_model(problem.subject)
    compute_all(problem, partial(compute, problem.subject, model, chains(problem)), ["torch", "transformers"])
