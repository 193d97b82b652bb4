"""Difference of means: the direction in the residual stream that tells two kinds of prompts apart.

Each task takes one contrasting pair; the mean over the pairs is the direction. ``contrastive_activation_addition``
steers with it, and its projections separate the two kinds about as well as a trained probe does.

Sources: Marks and Tegmark 2023, "The Geometry of Truth" (arXiv:2310.06824); Rimsky et al. 2024, "Steering Llama 2 via
Contrastive Activation Addition" (arXiv:2312.06681).
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Saves the difference of two prompts' residual vectors at one token after block ``layer``.

    Parameters: ``positive`` and ``negative``, prompts; ``layer``; ``position``, from the end if negative.
    Saves: ``difference`` ``[hidden]``.
    """
    with lm.trace() as t:
        with t.invoke(param("positive")):
            positive = lm.blocks[param("layer")].residual[0, param("position")].float()
        with t.invoke(param("negative")):
            negative = lm.blocks[param("layer")].residual[0, param("position")].float()
            (positive - negative).save("difference", dims=("hidden",))
    return t
