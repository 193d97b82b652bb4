"""Activation patching: which residual vector carries what makes the answer right.

The corrupted prompt is run with one residual vector of the clean run in its place: the one after block ``layer`` at
``position``. Where the logit difference comes back, the vector carried the information.

Sources: Vig et al. 2020, "Causal Mediation Analysis for Interpreting Neural NLP" (arXiv:2004.12265); Meng et al. 2022,
"Locating and Editing Factual Associations in GPT" (arXiv:2202.05262); Zhang and Nanda 2023, "Towards Best Practices of
Activation Patching" (arXiv:2309.16042), whose measure this is.
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches the residual stream of ``corrupted`` with that of ``clean``.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``layer`` and ``position``, where to
    patch; ``answer`` and ``distractor``, one token each.
    Saves: ``logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``.
    """
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = lm.blocks[param("layer")].residual[:, param("position")]
        with t.invoke(param("corrupted")):
            lm.blocks[param("layer")].residual[:, param("position")] = clean
            logits = lm.unembedding.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
    return t
