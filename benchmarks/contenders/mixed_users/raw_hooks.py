"""Raw PyTorch hooks, one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from contenders.mixed_users.requests import Request, answer_all
from contenders.models import blocks, load_model, neurons
from contenders.protocol import Subject, read


@torch.inference_mode()
def answer(subject: Subject, model: Any, requests: Sequence[Request]) -> list[torch.Tensor]:
    modules = blocks(subject, model)
    seen: list[torch.Tensor] = []
    for request in requests:
        written = neurons(subject, modules[request.write])
        handles = [
            written.register_forward_pre_hook(partial(overwrite, request)),
            modules[request.read].register_forward_hook(lambda _block, _args, output: seen.append(output[0, -1])),
        ]
        model(torch.tensor([request.prompt], device=subject.device), use_cache=False)
        for handle in handles:
            handle.remove()
    return seen


def overwrite(request: Request, _module: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    args[0][:, :, request.first : request.stop] = request.value
    return args


if __name__ == "__main__":
    problem = read()
    answer_all(problem, partial(answer, problem.subject, load_model(problem.subject)), ["torch", "transformers"])
