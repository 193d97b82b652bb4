"""Zero, mean and resample ablation: what the answer loses without attention or the MLP of one block.

What the component adds to the residual stream is replaced at every token: by zero; by its mean over the tokens of a
reference prompt; by what it adds at the same token of the reference. Zero takes the model furthest from what it knows.
``mean_ablation`` takes the mean of many prompts.

Sources: Olsson et al. 2022, "In-context Learning and Induction Heads" (arXiv:2209.11895), for zeros; Wang et al. 2022,
"Interpretability in the Wild" (arXiv:2211.00593), for means; Chan et al. 2022, "Causal Scrubbing"
(alignmentforum.org/posts/JvZhhzycHu2Yd57RN), for resampling.
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Ablates attention of block ``layer``, then its MLP, each in three ways.

    Parameters: ``prompt`` and ``reference``, of equal length in tokens; ``layer``; ``answer`` and ``distractor``, one
    token each.
    Saves: the last token's logit of ``answer`` less that of ``distractor``: ``logit_diff`` ``[]`` of the whole model;
    ``zero``, ``mean`` and ``resample`` ``[component]``, without attention and without the MLP.
    """
    with lm.trace() as t:
        parts = {"attention": lm.attention_outputs[param("layer")], "mlp": lm.mlp_outputs[param("layer")]}
        with t.invoke(param("reference")):
            others = {name: part.residual.clone() for name, part in parts.items()}
        with t.invoke(param("prompt")):
            _difference(lm).save("logit_diff")
        for way in ("zero", "mean", "resample"):
            found = []
            for name, part in parts.items():
                with t.invoke(param("prompt"), name=f"{way}-{name}"):
                    part.residual[...] = _instead(way, others[name])
                    found.append(_difference(lm))
            stacked: Any = torch.stack(found)
            stacked.save(way, dims=("component",))
    return t


def _instead(way: str, other: Any) -> Any:
    if way == "zero":
        return 0.0
    return other.float().mean(-2, keepdim=True) if way == "mean" else other


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
