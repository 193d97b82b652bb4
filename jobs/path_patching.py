"""Path patching: how far attention of one block acts on the answer directly, and how far through a later block.

What attention of block ``sender`` adds is taken from the clean run. With everything else that blocks add held at its
value of the corrupted run, the answer shows the direct path. What attention of block ``receiver`` computes from that
residual stream, put into the corrupted run alone, shows the path through it.

Sources: Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593); Goldowsky-Dill et al. 2023, "Localizing
Model Behavior with Path Patching" (arXiv:2304.05969).
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches paths that begin at attention of block ``sender``, at every token.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``sender`` and ``receiver``, blocks;
    ``answer`` and ``distractor``, one token each.
    Saves: the last token's logit of ``answer`` less that of ``distractor``, each ``[]``: ``corrupted_logit_diff``
    without a patch, ``total`` with the sender patched, ``direct`` and ``through`` with one path patched. A receiver
    before the sender leaves ``through`` at ``corrupted_logit_diff``.
    """
    with lm.trace() as t:
        sender, receiver = lm.attention_outputs[param("sender")], lm.attention_outputs[param("receiver")]
        with t.invoke(param("clean")):
            sent = sender.residual.clone()
        with t.invoke(param("corrupted")):
            parts = [part for pair in zip(lm.attention_outputs, lm.mlp_outputs, strict=True) for part in pair]
            frozen = [part.residual.clone() for part in parts]
            _difference(lm).save("corrupted_logit_diff")
        with t.invoke(param("corrupted"), name="direct"):
            received = receiver.residual.clone()
            for part, value in zip(parts, frozen, strict=True):
                part.residual = value
            sender.residual = sent
            _difference(lm).save("direct")
        for name, part, value in (("through", receiver, received), ("total", sender, sent)):
            with t.invoke(param("corrupted"), name=name):
                part.residual = value
                _difference(lm).save(name)
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
