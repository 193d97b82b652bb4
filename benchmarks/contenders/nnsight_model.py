"""What both nnsight contenders share: the wrapped model and the clean run."""

from __future__ import annotations

from typing import Any

import nnsight
import torch
from nnsight import LanguageModel
from transformers import AutoTokenizer

from contenders.protocol import Problem, load_model


def wrap(problem: Problem) -> LanguageModel:
    return LanguageModel(load_model(problem), tokenizer=AutoTokenizer.from_pretrained(problem.weights))


def clean_residuals(problem: Problem, lm: LanguageModel) -> list[Any]:
    """Output of each block in the clean run, ``[1, tokens, hidden]``."""
    with lm.trace(torch.tensor([problem.clean])):
        seen = nnsight.save([])
        for block in lm.model.layers:
            seen.append(block.output)
    return list(seen)
