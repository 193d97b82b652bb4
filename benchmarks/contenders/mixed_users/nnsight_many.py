"""nnsight, many requests as invokes of one trace, sorted by length so that little is padded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.mixed_users.requests import Request, answer_all
from contenders.models import blocks, neurons
from contenders.nnsight_model import LIBRARIES, batches, wrap
from contenders.protocol import Subject, read


@torch.inference_mode()
def answer(subject: Subject, lm: LanguageModel, requests: Sequence[Request], *, invokes: int) -> list[Any]:
    modules = blocks(subject, lm)
    order = sorted(range(len(requests)), key=lambda number: len(requests[number].prompt))
    found: dict[int, Any] = {}
    for batch in batches(order, invokes):
        with lm.trace() as tracer:
            seen = nnsight.save({})
            for number in batch:
                request = requests[number]
                written = neurons(subject, modules[request.write])
                with tracer.invoke(torch.tensor([request.prompt])):
                    if request.write <= request.read:
                        written.input[:, :, request.first : request.stop] = request.value
                    seen[number] = modules[request.read].output[0, -1]
                    if request.write > request.read:
                        written.input[:, :, request.first : request.stop] = request.value
        found.update(seen)
    return [found[number] for number in range(len(requests))]


if __name__ == "__main__":
    problem = read()
    answer_all(problem, partial(answer, problem.subject, wrap(problem.subject), **problem.arguments), LIBRARIES)
