"""Raw PyTorch forward hooks, one patched run at a time: what a researcher writes without any library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from contenders.models import blocks, load_model
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


@torch.inference_mode()
def patch(subject: Subject, given: Sweep, model: Any, layers: Sequence[int]) -> list[float]:
    modules = blocks(subject, model)
    clean = residuals(model, modules, torch.tensor([given.clean], device=subject.device))
    corrupted = torch.tensor([given.corrupted], device=subject.device)
    values = []
    for layer, position in given.cells(layers):
        handle = modules[layer].register_forward_hook(partial(overwrite, clean[layer], position))
        logits = model(corrupted, use_cache=False).logits[0, -1]
        values.append(logits[given.answer] - logits[given.distractor])
        handle.remove()
    found: list[float] = torch.stack(values).tolist()
    return found


def residuals(model: Any, modules: Any, prompt: torch.Tensor) -> list[torch.Tensor]:
    """Output of each block, ``[1, tokens, hidden]``."""
    seen: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda _block, _args, output: seen.append(output)) for block in modules]
    model(prompt, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def overwrite(clean: torch.Tensor, position: int, _block: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
    output[:, position] = clean[:, position]
    return output


if __name__ == "__main__":
    problem = read()
    patch_all(
        problem,
        partial(patch, problem.subject, sweep(problem), load_model(problem.subject)),
        ["torch", "transformers"],
    )
