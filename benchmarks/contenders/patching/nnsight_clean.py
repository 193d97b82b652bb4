"""The clean run, which both nnsight contenders start with."""

from __future__ import annotations

from typing import Any

import nnsight
import torch
from nnsight import LanguageModel

from contenders.models import blocks
from contenders.protocol import Subject


def clean_residuals(subject: Subject, lm: LanguageModel, prompt: list[int]) -> list[Any]:
    """Output of each block, ``[1, tokens, hidden]``."""
    with lm.trace(torch.tensor([prompt])):
        seen = nnsight.save([])
        for block in blocks(subject, lm):
            seen.append(block.output)
    return list(seen)
