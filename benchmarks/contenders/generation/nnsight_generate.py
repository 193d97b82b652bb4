"""nnsight's ``generate``, many invokes a trace, the layer read at every step."""

from __future__ import annotations

from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.generation.task import Generating, Prompts, generate_all, generating, in_batches
from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.protocol import Subject, read


@torch.inference_mode()
def save(subject: Subject, lm: LanguageModel, work: Generating, prompts: Prompts) -> torch.Tensor:
    block = blocks(subject, lm)[work.layer]
    found: dict[int, Any] = {}
    for batch in in_batches(prompts, work.rows):
        options = {"max_new_tokens": work.steps, "min_new_tokens": work.steps, "do_sample": False}
        with lm.generate(**options) as tracer:
            seen = nnsight.save([[] for _ in batch])
            for place, number in enumerate(batch):
                with tracer.invoke(torch.tensor([prompts[number]])):
                    for _ in tracer.iter[: work.steps]:
                        seen[place].append(block.output[0, -1])
        found.update(zip(batch, (torch.stack(list(states)) for states in seen), strict=True))
    return torch.stack([found[number] for number in range(len(prompts))]).float().cpu()


if __name__ == "__main__":
    problem = read()
    generate_all(problem, LIBRARIES, partial(save, problem.subject, wrap(problem.subject), generating(problem)))
