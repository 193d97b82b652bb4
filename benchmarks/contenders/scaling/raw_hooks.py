"""Raw PyTorch forward hooks for the first tasks of each case: values to compare with, no peer in time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from contenders.models import blocks, load_model
from contenders.protocol import Subject, read
from contenders.scaling.ablation import SAMPLE, TOKEN, Ablation, compute_all


@torch.inference_mode()
def compute(subject: Subject, model: Any, tasks: Sequence[Ablation]) -> torch.Tensor:
    modules = blocks(subject, model)
    found = []
    for task in tasks[:SAMPLE]:
        handle = modules[task.layer].register_forward_hook(partial(ablate, task.position))
        found.append(model(torch.tensor([task.prompt], device=subject.device), use_cache=False).logits[0, -1, TOKEN])
        handle.remove()
    return torch.stack(found).float().cpu()


def ablate(position: int, _block: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
    output[:, position] = 0.0
    return output


if __name__ == "__main__":
    problem = read()
    compute_all(problem, partial(compute, problem.subject, load_model(problem.subject)), ["torch", "transformers"])
