"""Representation reading: how far each token of a prompt lies along a direction that two prompts contrast.

The direction is the difference of the residual vectors of ``positive`` and ``negative`` at their last token, after
block ``layer``, as a unit vector. Zero of the scale is the middle between the two.

Source: Zou et al. 2023, "Representation Engineering: A Top-Down Approach to AI Transparency" (arXiv:2310.01405), whose
direction this is where one pair of prompts gives it.
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Projects the residual stream of ``prompt`` onto the direction from ``negative`` to ``positive``.

    Parameters: ``positive``, ``negative`` and ``prompt``; ``layer``.
    Saves: ``score`` ``[token]``, as long as the prompt: greater than zero on the side of ``positive``.
    """
    with lm.trace() as t:
        with t.invoke(param("positive")):
            positive = lm.blocks[param("layer")].residual[0, -1].float()
        with t.invoke(param("negative")):
            negative = lm.blocks[param("layer")].residual[0, -1].float()
        with t.invoke(param("prompt")):
            residual = lm.blocks[param("layer")].residual[0].float()
            direction = (positive - negative).normalize(dim=0)
            ((residual - (positive + negative) / 2) @ direction).save("score", dims=("token",))
    return t
