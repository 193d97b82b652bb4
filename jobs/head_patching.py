"""Patching heads: which attention heads move what makes the answer right, and at which token.

What one head puts out at one token of the clean run, before the output projection, takes the place of what it puts out
in the corrupted run.

Sources: Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593); Zhang and Nanda 2023, "Towards Best
Practices of Activation Patching" (arXiv:2309.16042), whose measure this is.
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches one head of ``corrupted`` with that of ``clean``.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``layer``, ``head`` and ``position``,
    where to patch; ``answer`` and ``distractor``, one token each.
    Saves: ``logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``.
    """
    with lm.trace() as t:
        attention = lm.attentions[param("layer")]
        with t.invoke(param("clean")):
            clean = attention.heads[:, param("position"), param("head")]
        with t.invoke(param("corrupted")):
            attention.heads[:, param("position"), param("head")] = clean
            logits = lm.unembedding.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
    return t
