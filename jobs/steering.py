"""Activation addition: whether a direction in the residual stream steers what the model says.

The direction is the difference of two prompts' residual vectors at their last token, after block ``layer``. It is
added, ``scale`` times, at every token of a third prompt, at the same layer.

Sources: Turner et al. 2023, "Steering Language Models With Activation Engineering" (arXiv:2308.10248); Rimsky et al.
2024, "Steering Llama 2 via Contrastive Activation Addition" (arXiv:2312.06681).
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Steers ``prompt`` from ``negative`` towards ``positive``.

    Parameters: ``positive``, ``negative`` and ``prompt``; ``layer``; ``scale``, 0 for none; ``answer`` and
    ``distractor``, one token each.
    Saves: ``logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``; ``top_tokens`` and
    ``top_log_probs`` ``[rank]``, the five most probable next tokens.
    """
    with lm.trace() as t:
        with t.invoke(param("positive")):
            positive = lm.blocks[param("layer")].residual[0, -1]
        with t.invoke(param("negative")):
            negative = lm.blocks[param("layer")].residual[0, -1]
        with t.invoke(param("prompt")):
            lm.blocks[param("layer")].residual += param("scale") * (positive - negative)
            logits = lm.unembedding.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
            top = logits.float().log_softmax(-1).topk(TOP)
            top.indices.save("top_tokens", dims=("rank",))
            top.values.save("top_log_probs", dims=("rank",))
    return t
