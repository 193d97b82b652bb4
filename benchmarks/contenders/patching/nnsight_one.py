"""nnsight, one trace a run: its documented way to patch, in a loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from nnsight import LanguageModel

from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.patching.nnsight_clean import clean_residuals
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


@torch.inference_mode()
def patch(subject: Subject, given: Sweep, lm: LanguageModel, layers: Sequence[int]) -> list[float]:
    clean = clean_residuals(subject, lm, given.clean)
    modules = blocks(subject, lm)
    corrupted = torch.tensor([given.corrupted])
    values: list[Any] = []
    for layer, position in given.cells(layers):
        with lm.trace(corrupted):
            modules[layer].output[:, position] = clean[layer][:, position]
            logits = lm.lm_head.output[0, -1]
            difference = (logits[given.answer] - logits[given.distractor]).save()
        values.append(difference)
    found: list[float] = torch.stack(values).tolist()
    return found


if __name__ == "__main__":
    problem = read()
    patch_all(problem, partial(patch, problem.subject, sweep(problem), wrap(problem.subject)), LIBRARIES)
