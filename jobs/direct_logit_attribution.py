"""Direct logit attribution: how much of a logit difference each attention and each MLP writes by itself.

The residual stream is a sum: the embedding and what each block's attention and MLP add. With the final norm's scale
held at its value in this run, the logit difference is linear in that sum, so that each term has a share.

What the final norm does is told by what it makes of three vectors: of zeros, its bias; of signs that alternate, its
gain; of ones, whether it takes the mean off.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"
(transformer-circuits.pub/2021/framework); Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593).
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Divides the last token's logit difference between ``answer`` and ``distractor`` among the terms of the stream.

    Parameters: ``prompt``; ``answer`` and ``distractor``, one token each.
    Saves: ``logit_diff`` ``[]``; the shares that add up to it: ``attention`` and ``mlp`` ``[layer]``, ``embedding``
    ``[]``, ``constant`` ``[]`` from biases of norm and unembedding, and ``rest`` ``[layer]``, of what a block adds
    besides attention and MLP: zero unless it scales them.
    """
    with lm.trace(param("prompt")) as t:
        before = _last_token([block.input for block in lm.blocks])
        attention, mlp, after = (
            _last_token([part.residual for part in parts])
            for parts in (lm.attention_outputs, lm.mlp_outputs, lm.blocks)
        )
        direction, constant = _linear(lm)
        _difference(lm.unembedding.output[0, -1]).save("logit_diff")
        for name, terms in (("attention", attention), ("mlp", mlp), ("rest", after - before - attention - mlp)):
            (terms @ direction).save(name, dims=("layer",))
        (before[0] @ direction).save("embedding")
        constant.save("constant")
    return t


def _last_token(values: list[Any]) -> Any:
    """``[layer, hidden]``."""
    stacked: Any = torch.stack([value[..., -1, :] for value in values])
    return stacked.reshape(len(values), -1).float()


def _linear(lm: LanguageModel) -> tuple[Any, Any]:
    """``direction`` and ``constant`` with ``logit_diff = residual @ direction + constant``, the norm's scale held."""
    residual = lm.blocks[-1].residual[0, -1]
    ones, signs = torch.ones_like(residual), residual.clone()
    signs[...] = ones.float().cumsum(-1) % 2 * 2 - 1
    bias = lm.final_norm(ones * 0)
    gain = (lm.final_norm(signs) - bias).float() * signs
    centring = 1 - (lm.final_norm(ones) - bias).float() @ gain / (gain @ gain)
    centred = residual.float() - centring * residual.float().mean()
    normed = (lm.final_norm.output[0, -1] - bias).float()
    scale = normed @ (gain * centred) / (gain * centred).square().sum()
    direction = scale * gain * _difference(lm.unembedding.weight).float()
    return direction - centring * direction.mean(), _difference(lm.unembedding(bias)).float()


def _difference(values: Any) -> Any:
    return values[param("answer")] - values[param("distractor")]
