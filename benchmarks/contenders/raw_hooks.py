"""Raw PyTorch forward hooks, one patched run at a time: what a researcher writes without any library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from contenders.protocol import Problem, Values, compete, load_model, read


@torch.inference_mode()
def patch(problem: Problem, model: Any, layers: Sequence[int]) -> Values:
    blocks = model.model.layers
    clean = residuals(model, blocks, torch.tensor([problem.clean], device=problem.device))
    corrupted = torch.tensor([problem.corrupted], device=problem.device)
    values = []
    for layer in layers:
        for position in problem.positions:
            handle = blocks[layer].register_forward_hook(partial(overwrite, clean[layer], position))
            logits = model(corrupted, use_cache=False).logits[0, -1]
            values.append(logits[problem.answer] - logits[problem.distractor])
            handle.remove()
    found: Values = torch.stack(values).reshape(len(layers), -1).tolist()
    return found


def residuals(model: Any, blocks: Any, prompt: torch.Tensor) -> list[torch.Tensor]:
    """Output of each block, ``[1, tokens, hidden]``."""
    seen: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda _block, _args, output: seen.append(output)) for block in blocks]
    model(prompt, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def overwrite(clean: torch.Tensor, position: int, _block: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
    output[:, position] = clean[:, position]
    return output


if __name__ == "__main__":
    problem = read()
    compete(problem, partial(patch, problem, load_model(problem)), ["torch", "transformers"])
