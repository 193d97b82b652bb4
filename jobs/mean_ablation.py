"""Mean ablation: what the answer loses when attention or the MLP of one block says the same at every token.

What the component adds to the residual stream is replaced at every token by a mean over many prompts, which is given.

Sources: Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593); Zhang and Nanda 2023, "Towards Best
Practices of Activation Patching" (arXiv:2309.16042), on what means keep that zeros do not.
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Ablates attention of block ``layer``, then its MLP, by given means.

    Parameters: ``prompt``; ``layer``; ``attention_mean`` and ``mlp_mean`` ``[hidden]``, what the two add on average;
    ``answer`` and ``distractor``, one token each.
    Saves: the last token's logit of ``answer`` less that of ``distractor``, each ``[]``: ``logit_diff`` of the whole
    model, ``attention`` and ``mlp`` without the component.
    """
    with lm.trace() as t:
        parts = {"attention": lm.attention_outputs[param("layer")], "mlp": lm.mlp_outputs[param("layer")]}
        with t.invoke(param("prompt")):
            _difference(lm).save("logit_diff")
        for name, part in parts.items():
            with t.invoke(param("prompt"), name=name):
                part.residual[...] = param(f"{name}_mean", type="tensor")[...]
                _difference(lm).save(name)
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
