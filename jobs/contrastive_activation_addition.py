"""Contrastive activation addition: steering with a direction that was averaged over many pairs of prompts.

The direction is given: ``difference_of_means`` finds it. It is added, ``scale`` times, at every token.

Source: Rimsky et al. 2024, "Steering Llama 2 via Contrastive Activation Addition" (arXiv:2312.06681).
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Adds ``direction`` to the residual stream of ``prompt`` after block ``layer``.

    Parameters: ``prompt``; ``layer``; ``direction`` ``[hidden]``; ``scale``, 0 for none; ``answer`` and ``distractor``,
    one token each.
    Saves: ``logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``; ``top_tokens`` and
    ``top_log_probs`` ``[rank]``, the five most probable next tokens.
    """
    with lm.trace(param("prompt")) as t:
        residual = lm.blocks[param("layer")].residual
        residual[...] = residual + param("scale") * param("direction", type="tensor")
        logits = lm.unembedding.output[0, -1]
        (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
        top = logits.float().log_softmax(-1).topk(TOP)
        top.indices.save("top_tokens", dims=("rank",))
        top.values.save("top_log_probs", dims=("rank",))
    return t
