"""Hugging Face: ``generate`` over left-padded rows, then a second pass over everything for the layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from contenders.generation.task import Generating, Prompts, generate_all, generating, in_batches
from contenders.models import load_model
from contenders.protocol import read


def padded(model: Any, prompts: Prompts) -> dict[str, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    return {"input_ids": ids, "attention_mask": mask}


def generated(model: Any, work: Generating, prompts: Prompts) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole rows and their mask."""
    given = padded(model, prompts)
    rows = model.generate(
        **given, max_new_tokens=work.steps, min_new_tokens=work.steps, do_sample=False, pad_token_id=0
    )
    mask = torch.cat([given["attention_mask"], torch.ones_like(rows[:, -work.steps :])], 1)
    return rows, mask


@torch.inference_mode()
def continued(model: Any, work: Generating, prompts: Prompts) -> torch.Tensor:
    found: dict[int, torch.Tensor] = {}
    for batch in in_batches(prompts, work.rows):
        rows, _ = generated(model, work, [prompts[number] for number in batch])
        found.update(zip(batch, rows[:, -work.steps :].cpu(), strict=True))
    return torch.stack([found[number] for number in range(len(prompts))])


@torch.inference_mode()
def save(model: Any, work: Generating, prompts: Prompts) -> torch.Tensor:
    found: dict[int, torch.Tensor] = {}
    for batch in in_batches(prompts, work.rows):
        rows, mask = generated(model, work, [prompts[number] for number in batch])
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        states = model(
            rows[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states
        found.update(zip(batch, states[work.layer + 1][:, -work.steps :].float().cpu(), strict=True))
    return torch.stack([found[number] for number in range(len(prompts))])


if __name__ == "__main__":
    problem = read()
    model, work = load_model(problem.subject), generating(problem)
    model.generation_config.eos_token_id = None
    libraries = ["torch", "transformers"]
    generate_all(problem, libraries, partial(save, model, work), partial(continued, model, work))
