"""nnsight, one trace a request; with ``stop`` it ends after the deepest block that the request needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from nnsight import LanguageModel

from contenders.mixed_users.requests import Request, answer_all
from contenders.models import blocks, neurons
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.protocol import Subject, read


@torch.inference_mode()
def answer(subject: Subject, lm: LanguageModel, requests: Sequence[Request], *, stop: bool) -> list[Any]:
    modules = blocks(subject, lm)
    found: list[Any] = []
    for request in requests:
        written = neurons(subject, modules[request.write])
        with lm.trace(torch.tensor([request.prompt])) as tracer:
            if request.write <= request.read:
                written.input[:, :, request.first : request.stop] = request.value
            residual = modules[request.read].output[0, -1].save()
            if request.write > request.read:
                written.input[:, :, request.first : request.stop] = request.value
            if stop:
                tracer.stop()
        found.append(residual)
    return found


if __name__ == "__main__":
    problem = read()
    answer_all(problem, partial(answer, problem.subject, wrap(problem.subject), **problem.arguments), LIBRARIES)
