"""Data for probes: the residual vector of one token after every block, with a label for each prompt.

A linear probe asks what can be read off a layer. The labels lie beside the prompts in the file of the sweep; ``label``
goes through to the result, so that each vector lies beside its own.

Sources: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes" (arXiv:1610.01644);
Belinkov 2021, "Probing Classifiers: Promises, Shortcomings, and Advances" (arXiv:2102.12452).
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Saves one token's residual vector after every block.

    Parameters: ``prompt``; ``position``, from the end if negative; ``label``, a number.
    Saves: ``residual`` ``[layer, hidden]``; ``labels`` ``[]``.
    """
    with lm.trace(param("prompt")) as t:
        vectors: list[Any] = [block.residual[0, param("position")] for block in lm.blocks]
        residuals: Any = torch.stack(vectors)
        residuals.save("residual", dims=("layer", "hidden"))
        (param("label") + 0).save("labels")
    return t
