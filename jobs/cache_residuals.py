"""Caching activations: the residual stream of many prompts, to train probes or sparse autoencoders on.

Sources: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes" (arXiv:1610.01644);
Cunningham et al. 2023, "Sparse Autoencoders Find Highly Interpretable Features in Language Models" (arXiv:2309.08600).
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Saves the residual stream after one block, whole.

    Parameters: ``prompt``; ``layer``.
    Saves: ``residual`` ``[token, hidden]``, as long as the prompt.
    """
    with lm.trace(param("prompt")) as t:
        lm.blocks[param("layer")].residual[0].save("residual", dims=("token", "hidden"))
    return t
