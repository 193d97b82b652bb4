"""nnsight, all tasks as invokes of one trace."""

from __future__ import annotations

from functools import partial

import nnsight
import torch
from nnsight import LanguageModel

from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.overhead.chain import Chains, chain, chains, compute_all
from contenders.protocol import Subject, read


@torch.inference_mode()
def compute(subject: Subject, lm: LanguageModel, given: Chains, nodes: int) -> torch.Tensor:
    block = blocks(subject, lm)[-1]
    with lm.trace() as tracer:
        found = nnsight.save([])
        for prompt, scale in zip(given.prompts, given.scales, strict=True):
            with tracer.invoke(torch.tensor([prompt])):
                found.append(chain(block.output[0, -1], scale, nodes))
    return torch.stack(list(found)).float().cpu()


if __name__ == "__main__":
    problem = read()
    compute_all(problem, partial(compute, problem.subject, wrap(problem.subject), chains(problem)), LIBRARIES)
