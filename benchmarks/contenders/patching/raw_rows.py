"""Raw PyTorch forward hooks, many patched runs as rows of one batch: the best that hooks alone can do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from contenders.models import blocks, load_model
from contenders.patching.raw_hooks import residuals
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


@torch.inference_mode()
def patch(subject: Subject, given: Sweep, model: Any, layers: Sequence[int], *, rows: int) -> list[float]:
    modules = blocks(subject, model)
    clean = residuals(model, modules, torch.tensor([given.clean], device=subject.device))
    corrupted = torch.tensor([given.corrupted], device=subject.device)
    cells = given.cells(layers)
    values = []
    for first in range(0, len(cells), rows):
        batch = cells[first : first + rows]
        handles = [
            modules[layer].register_forward_hook(partial(overwrite, clean[layer], row, position))
            for row, (layer, position) in enumerate(batch)
        ]
        logits = model(corrupted.expand(len(batch), -1), use_cache=False).logits[:, -1]
        values.append(logits[:, given.answer] - logits[:, given.distractor])
        for handle in handles:
            handle.remove()
    found: list[float] = torch.cat(values).tolist()
    return found


def overwrite(
    clean: torch.Tensor, row: int, position: int, _block: Any, _args: Any, output: torch.Tensor
) -> torch.Tensor:
    output[row, position] = clean[0, position]
    return output


if __name__ == "__main__":
    problem = read()
    model = load_model(problem.subject)
    run = partial(patch, problem.subject, sweep(problem), model, **problem.arguments)
    patch_all(problem, run, ["torch", "transformers"])
