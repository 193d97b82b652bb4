"""Integrated gradients: how much each token adds to a logit difference on the straight way from another prompt.

The hidden states that go into block ``layer`` move in small steps from those of ``baseline`` to those of ``prompt``. At
each step the gradient is taken; its mean times the whole way is each token's share. The shares add up to the difference
between the two ends, as far as the steps are fine enough: block 0 gives those of the tokens themselves.

Sources: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks" (arXiv:1703.01365); Dhamdhere,
Sundararajan and Yan 2018, "How Important Is a Neuron?" (arXiv:1805.12233), for hidden states; Marks et al. 2024,
"Sparse Feature Circuits" (arXiv:2403.19647), whose ends are two prompts.
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param

STEPS = 16


def build(lm: LanguageModel) -> Trace:
    """Attributes the logit difference between ``prompt`` and ``baseline`` to the tokens, at one block.

    Parameters: ``prompt`` and ``baseline``, of equal length in tokens; ``layer``; ``answer`` and ``distractor``, one
    token each.
    Saves: ``attribution`` ``[token]``; ``logit_diff`` and ``baseline_logit_diff`` ``[]``, the last token's logit of
    ``answer`` less that of ``distractor``: ``attribution`` adds up to the change from one to the other.
    """
    with lm.trace() as t:
        with t.invoke(param("baseline")):
            start = lm.blocks[param("layer")].input
            _difference(lm).save("baseline_logit_diff")
        with t.invoke(param("prompt")):
            way = lm.blocks[param("layer")].input - start
            _difference(lm).save("logit_diff")
        steps, differences = [], []
        for step in range(STEPS):
            with t.invoke(param("prompt"), name=f"step{step}"):
                lm.blocks[param("layer")].input = start + (step + 0.5) / STEPS * way
                steps.append(lm.blocks[param("layer")].input)
                differences.append(_difference(lm))
        total: Any = torch.stack(differences).sum()
        total.backward()
        gradient: Any = torch.stack([step.grad for step in steps]).float().mean(0)
        (gradient * way)[0].float().sum(-1).save("attribution", dims=("token",))
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
