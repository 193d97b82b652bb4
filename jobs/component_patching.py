"""Patching attention and MLP outputs: which of them write what makes the answer right, at which block and token.

As ``activation_patching``, but what comes from the clean run is not the whole residual vector: it is what attention
alone, or the MLP alone, adds to it there.

Sources: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv:2202.05262), which severs the two;
Zhang and Nanda 2023, "Towards Best Practices of Activation Patching" (arXiv:2309.16042).
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Patches what attention adds in ``corrupted`` with that of ``clean``, and, in a run of its own, what the MLP adds.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``layer`` and ``position``, where to
    patch; ``answer`` and ``distractor``, one token each.
    Saves: ``attention`` and ``mlp`` ``[]``, the last token's logit of ``answer`` less that of ``distractor`` when that
    component is patched.
    """
    with lm.trace() as t:
        parts = {"attention": lm.attention_outputs[param("layer")], "mlp": lm.mlp_outputs[param("layer")]}
        with t.invoke(param("clean")):
            clean = {name: part.residual[..., param("position"), :] for name, part in parts.items()}
        for name, part in parts.items():
            with t.invoke(param("corrupted"), name=name):
                part.residual[..., param("position"), :] = clean[name]
                _difference(lm).save(name)
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
