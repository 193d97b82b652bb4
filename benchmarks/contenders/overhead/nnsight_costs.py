"""What nnsight asks for a trace, an access and an invoke: what is timed here, ``overhead.py`` takes apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.models import blocks
from contenders.nnsight_model import LIBRARIES, wrap
from contenders.overhead.chain import INVOKES, TIMES, chains
from contenders.protocol import Subject, compete, read


def forward(subject: Subject, lm: LanguageModel, prompt: torch.Tensor) -> Any:
    given = prompt.to(subject.device)
    for _ in range(TIMES):
        logits = lm._module(given).logits
    return logits.float().cpu()


def trace(subject: Subject, lm: LanguageModel, prompt: torch.Tensor) -> Any:
    for _ in range(TIMES):
        with lm.trace(prompt):
            logits = lm.lm_head.output.save()
    return logits.float().cpu()


def accesses(subject: Subject, lm: LanguageModel, prompt: torch.Tensor) -> Any:
    """As :func:`trace`, and the input and output of every block besides."""
    modules = blocks(subject, lm)
    for _ in range(TIMES):
        with lm.trace(prompt):
            for block in modules:
                _ = block.input
                _ = block.output
            logits = lm.lm_head.output.save()
    return logits.float().cpu()


def invokes(subject: Subject, lm: LanguageModel, prompt: torch.Tensor) -> Any:
    for _ in range(TIMES):
        with lm.trace() as tracer:
            found = nnsight.save([])
            for _ in range(INVOKES):
                with tracer.invoke(prompt):
                    found.append(lm.lm_head.output)
    return torch.cat(list(found)).float().cpu()


def rows(subject: Subject, lm: LanguageModel, prompt: torch.Tensor) -> Any:
    """As many rows as there are invokes, without nnsight."""
    return forward(subject, lm, prompt.expand(INVOKES, -1))


if __name__ == "__main__":
    problem = read()
    lm = wrap(problem.subject)
    prompt = torch.tensor([chains(problem).prompts[0]])
    works: list[Callable[..., Any]] = [forward, trace, accesses, invokes, rows]
    cases = {work.__name__: partial(work, problem.subject, lm, prompt) for work in works}
    with torch.inference_mode():
        compete(problem, cases, LIBRARIES, warm=lambda: [work() for work in cases.values()])
