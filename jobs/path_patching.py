"""Path patching: how far a head acts on the answer directly, and how far through attention of a later block.

What one head puts out is taken from the clean run. With everything else that blocks add held at its value of the
corrupted run, the answer shows the direct path. What attention of a later block computes from that residual stream, put
into the corrupted run alone, shows the path through it.

Sources: Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593); Goldowsky-Dill et al. 2023, "Localizing
Model Behavior with Path Patching" (arXiv:2304.05969).
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches paths that begin at one head, at every token.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``sender`` and ``head``, where paths
    begin; ``receiver``, a block; ``answer`` and ``distractor``, one token each.
    Saves: the last token's logit of ``answer`` less that of ``distractor``, each ``[]``: ``corrupted_logit_diff``
    without a patch, ``total`` with the head patched, ``direct`` and ``through`` with one path patched. A receiver that
    does not come after the sender leaves ``through`` at ``corrupted_logit_diff``.
    """
    with lm.trace() as t:
        sender, receiver = lm.attention_outputs[param("sender")], lm.attention_outputs[param("receiver")]
        with t.invoke(param("clean")):
            clean = lm.attentions[param("sender")].heads[:, :, param("head")]
        with t.invoke(param("corrupted")):
            parts = [part for pair in zip(lm.attention_outputs, lm.mlp_outputs, strict=True) for part in pair]
            frozen = [part.residual.clone() for part in parts]
            _difference(lm).save("corrupted_logit_diff")
        with t.invoke(param("corrupted"), name="total"):
            lm.attentions[param("sender")].heads[:, :, param("head")] = clean
            sent = sender.residual.clone()
            _difference(lm).save("total")
        with t.invoke(param("corrupted"), name="direct"):
            received = receiver.residual.clone()
            for part, value in zip(parts, frozen, strict=True):
                part.residual[...] = value
            sender.residual[...] = sent
            _difference(lm).save("direct")
        with t.invoke(param("corrupted"), name="through"):
            receiver.residual[...] = received
            _difference(lm).save("through")
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
