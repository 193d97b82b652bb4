"""nnsight, many invokes a trace, sorted by length so that little is padded."""

from __future__ import annotations

from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.extraction.reading import Prompts, extract_all, reading
from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, batches, wrap
from contenders.protocol import Subject, read


@torch.inference_mode()
def extract(subject: Subject, lm: LanguageModel, layer: int, prompts: Prompts, *, invokes: int) -> torch.Tensor:
    block = blocks(subject, lm)[layer]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    found: dict[int, Any] = {}
    for batch in batches(order, invokes):
        with lm.trace() as tracer:
            seen = nnsight.save([])
            for number in batch:
                with tracer.invoke(torch.tensor([prompts[number]])):
                    seen.append(block.output[0, -1])
        found.update(zip(batch, seen, strict=True))
    return torch.stack([found[number] for number in range(len(prompts))]).float().cpu()


if __name__ == "__main__":
    problem = read()
    run = partial(extract, problem.subject, wrap(problem.subject), reading(problem).layer, **problem.arguments)
    extract_all(problem, run, LIBRARIES)
