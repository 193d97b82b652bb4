"""nnsight, 32 invokes a trace: its own way to run many patched runs together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.nnsight_model import clean_residuals, wrap
from contenders.protocol import Problem, Values, compete, read

INVOKES = 32


@torch.inference_mode()
def patch(problem: Problem, lm: LanguageModel, layers: Sequence[int]) -> Values:
    clean = clean_residuals(problem, lm)
    corrupted = torch.tensor([problem.corrupted])
    cells = [(layer, position) for layer in layers for position in problem.positions]
    values: list[Any] = []
    for first in range(0, len(cells), INVOKES):
        batch = cells[first : first + INVOKES]
        with lm.trace() as tracer:
            found = nnsight.save([])
            for layer, position in batch:
                with tracer.invoke(corrupted):
                    lm.model.layers[layer].output[:, position] = clean[layer][:, position]
                    logits = lm.lm_head.output[0, -1]
                    found.append(logits[problem.answer] - logits[problem.distractor])
        values.extend(found)
    table: Values = torch.stack(values).reshape(len(layers), -1).tolist()
    return table


if __name__ == "__main__":
    problem = read()
    compete(problem, partial(patch, problem, wrap(problem)), ["nnsight", "torch", "transformers"])
