"""Activation addition while a text is generated: the direction is added at every token, those that come included.

The direction is the difference of two prompts' residual vectors at their last token, after block ``layer``. It is
added, ``scale`` times, at every token of a third prompt and of what the model writes after it, at the same layer.

Sources: Turner et al. 2023, "Steering Language Models With Activation Engineering" (arXiv:2308.10248); Rimsky et al.
2024, "Steering Llama 2 via Contrastive Activation Addition" (arXiv:2312.06681).
"""

from ndif_batch.trace import LanguageModel, Trace, param

NEW_TOKENS = 24


def build(lm: LanguageModel) -> Trace:
    """Continues ``prompt``, steered from ``negative`` towards ``positive``.

    Parameters: ``positive``, ``negative`` and ``prompt``; ``layer``; ``scale``, 0 for none; ``temperature``, with which
    tokens are drawn (the task's seed decides).
    Saves: ``tokens`` ``[step]``, what was generated; ``along`` ``[position]``, how far the residual stream after the
    steered block points along the direction, at the prompt's tokens and at those that were generated but the last.
    """
    with lm.generate(max_new_tokens=NEW_TOKENS, temperature=param("temperature")) as t:
        with t.invoke(param("positive")):
            positive = lm.blocks[param("layer")].residual[0, -1]
        with t.invoke(param("negative")):
            negative = lm.blocks[param("layer")].residual[0, -1]
        direction = positive - negative
        with t.invoke(param("prompt")):
            t.tokens.save("tokens", dims=("step",))
            with t.all():
                lm.blocks[param("layer")].residual += param("scale") * direction
                states = lm.blocks[param("layer")].residual[0].float()
                unit = direction.float() / direction.float().norm()
                (states @ unit).save("along", dims=("position",))
    return t
