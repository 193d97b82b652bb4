"""TransformerLens at its best: many patched runs as rows of one batch, a hook for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from contenders.models import load_model, make_tokenizer
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


def boot(subject: Subject) -> Any:
    """The model behind TransformerLens' hooks, unchanged otherwise; it wants a directory with the configuration."""
    model = load_model(subject)
    model.config.architectures = [type(model).__name__]
    with TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer = make_tokenizer(subject)
        dtype = getattr(torch, subject.dtype)
        return TransformerBridge.boot_transformers(
            folder, hf_model=model, tokenizer=tokenizer, device=subject.device, dtype=dtype
        )


@torch.inference_mode()
def patch(subject: Subject, given: Sweep, model: Any, layers: Sequence[int], *, rows: int) -> list[float]:
    names = {layer: f"blocks.{layer}.hook_out" for layer in layers}
    _, clean = model.run_with_cache(
        torch.tensor([given.clean], device=subject.device), names_filter=lambda name: name in names.values()
    )
    corrupted = torch.tensor([given.corrupted], device=subject.device)
    cells = given.cells(layers)
    values = []
    for first in range(0, len(cells), rows):
        batch = cells[first : first + rows]
        hooks = [
            (names[layer], partial(overwrite, clean[names[layer]], row, position))
            for row, (layer, position) in enumerate(batch)
        ]
        logits = model.run_with_hooks(corrupted.expand(len(batch), -1), fwd_hooks=hooks)[:, -1]
        values.append(logits[:, given.answer] - logits[:, given.distractor])
    found: list[float] = torch.cat(values).tolist()
    return found


def overwrite(clean: torch.Tensor, row: int, position: int, value: torch.Tensor, hook: Any) -> torch.Tensor:
    value[row, position] = clean[0, position]
    return value


if __name__ == "__main__":
    problem = read()
    run = partial(patch, problem.subject, sweep(problem), boot(problem.subject), **problem.arguments)
    patch_all(problem, run, ["transformer-lens", "torch", "transformers"])
