"""Patching neurons: which single neurons of an MLP carry what makes the answer right.

A neuron is one entry of what goes into the MLP's down projection. Its value at one token of the clean run takes the
place of that of the corrupted run.

Sources: Vig et al. 2020, "Causal Mediation Analysis for Interpreting Neural NLP: The Case of Gender Bias"
(arXiv:2004.12265), which does so neuron by neuron; Zhang and Nanda 2023 (arXiv:2309.16042), whose measure this is.
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches one neuron of ``corrupted`` with that of ``clean``.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``layer``, ``position`` and ``neuron``,
    where to patch; ``answer`` and ``distractor``, one token each.
    Saves: ``logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``; ``clean_activation``
    and ``corrupted_activation`` ``[]``, the neuron's values in the two runs.
    """
    with lm.trace() as t:
        neurons = lm.down_projections[param("layer")]
        with t.invoke(param("clean")):
            clean = neurons.input[..., param("position"), param("neuron")]
            clean.squeeze().save("clean_activation")
        with t.invoke(param("corrupted")):
            neurons.input[..., param("position"), param("neuron")].squeeze().save("corrupted_activation")
            neurons.input[..., param("position"), param("neuron")] = clean
            logits = lm.unembedding.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save("logit_diff")
    return t
