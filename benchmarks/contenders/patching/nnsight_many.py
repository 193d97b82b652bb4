"""nnsight, many invokes a trace: its own way to run many patched runs together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, batches, wrap
from contenders.patching.nnsight_clean import clean_residuals
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


@torch.inference_mode()
def patch(subject: Subject, given: Sweep, lm: LanguageModel, layers: Sequence[int], *, invokes: int) -> list[float]:
    clean = clean_residuals(subject, lm, given.clean)
    modules = blocks(subject, lm)
    corrupted = torch.tensor([given.corrupted])
    values: list[Any] = []
    for batch in batches(given.cells(layers), invokes):
        with lm.trace() as tracer:
            found = nnsight.save([])
            for layer, position in batch:
                with tracer.invoke(corrupted):
                    modules[layer].output[:, position] = clean[layer][:, position]
                    logits = lm.lm_head.output[0, -1]
                    found.append(logits[given.answer] - logits[given.distractor])
        values.extend(found)
    differences: list[float] = torch.stack(values).tolist()
    return differences


if __name__ == "__main__":
    problem = read()
    run = partial(patch, problem.subject, sweep(problem), wrap(problem.subject), **problem.arguments)
    patch_all(problem, run, LIBRARIES)
