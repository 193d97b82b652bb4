"""nnsight, one trace a run: its documented way to patch, in a loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from nnsight import LanguageModel

from contenders.nnsight_model import clean_residuals, wrap
from contenders.protocol import Problem, Values, compete, read


@torch.inference_mode()
def patch(problem: Problem, lm: LanguageModel, layers: Sequence[int]) -> Values:
    clean = clean_residuals(problem, lm)
    corrupted = torch.tensor([problem.corrupted])
    values: list[Any] = []
    for layer in layers:
        for position in problem.positions:
            with lm.trace(corrupted):
                lm.model.layers[layer].output[:, position] = clean[layer][:, position]
                logits = lm.lm_head.output[0, -1]
                difference = (logits[problem.answer] - logits[problem.distractor]).save()
            values.append(difference)
    found: Values = torch.stack(values).reshape(len(layers), -1).tolist()
    return found


if __name__ == "__main__":
    problem = read()
    compete(problem, partial(patch, problem, wrap(problem)), ["nnsight", "torch", "transformers"])
