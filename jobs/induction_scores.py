"""Induction scores: which heads look at what came after the last time that this token came.

On random tokens that come twice, an induction head attends from each token of the second time to the one after its
first. A duplicate-token head attends to the first itself, a previous-token head to the token before.

Source: Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv:2209.11895).
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Scores every head of every block on ``prompt``, in which the same ``length`` tokens come twice.

    Parameters: ``prompt``, of twice ``length`` tokens; ``length``.
    Saves: ``induction``, ``duplicate`` and ``previous`` ``[layer, head]``, the mean attention from the tokens of the
    second time to the place that such a head looks at: 0 to 1.
    """
    with lm.trace(param("prompt")) as t:
        patterns: Any = torch.stack([attention.pattern[0] for attention in lm.attentions]).float()
        ones: Any = torch.ones_like(patterns[0, 0])
        query, key = ones.cumsum(0), ones.cumsum(1)
        second = query > param("length", type="int")
        for name, back in (("induction", param("length") - 1), ("duplicate", param("length")), ("previous", 1)):
            there = (second & (query - key == back)).float()
            ((patterns * there).sum((-2, -1)) / there.sum()).save(name, dims=("layer", "head"))
    return t
