"""Patchscopes: a vector of one prompt, put into words by another prompt.

The residual vector after block ``layer`` at ``position`` of ``source`` takes the place of the one after block
``target_layer`` at ``target_position`` of ``target``, a prompt that asks the model to say what it sees there.

Source: Ghandeharioun et al. 2024, "Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language
Models" (arXiv:2401.06102).
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Decodes a vector of ``source`` with the prompt ``target``.

    Parameters: ``source`` and ``target``, prompts; ``layer`` and ``position`` of the vector in ``source``;
    ``target_layer`` and ``target_position`` of its place in ``target``; ``answer``, one token.
    Saves: ``answer_log_prob`` ``[]`` (nats); ``top_tokens`` and ``top_log_probs`` ``[rank]``, the five most probable
    next tokens of ``target``.
    """
    with lm.trace() as t:
        with t.invoke(param("source")):
            vector = lm.blocks[param("layer")].residual[:, param("position")]
        with t.invoke(param("target")):
            lm.blocks[param("target_layer")].residual[:, param("target_position")] = vector
            log_probs = lm.unembedding.output[0, -1].float().log_softmax(-1)
            log_probs[param("answer")].save("answer_log_prob")
            top = log_probs.topk(TOP)
            top.indices.save("top_tokens", dims=("rank",))
            top.values.save("top_log_probs", dims=("rank",))
    return t
