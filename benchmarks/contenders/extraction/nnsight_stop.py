"""nnsight, one trace a prompt, which ends after the layer that is read."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from nnsight import LanguageModel

from contenders.extraction.reading import Prompts, extract_all, reading
from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.protocol import Subject, read


@torch.inference_mode()
def extract(subject: Subject, lm: LanguageModel, layer: int, prompts: Prompts) -> torch.Tensor:
    block = blocks(subject, lm)[layer]
    found: list[Any] = []
    for prompt in prompts:
        with lm.trace(torch.tensor([prompt])) as tracer:
            residual = block.output[0, -1].save()
            tracer.stop()
        found.append(residual)
    return torch.stack(found).float().cpu()


if __name__ == "__main__":
    problem = read()
    lm = wrap(problem.subject)
    extract_all(problem, partial(extract, problem.subject, lm, reading(problem).layer), LIBRARIES)
