"""Causal tracing: which residual vector brings a fact back after noise has hidden its subject from the model.

Normal noise is added to the embeddings of the subject's tokens. Then one residual vector of the run without noise is
put back, and the model runs on.

Source: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv:2202.05262), where the noise is
three times the standard deviation of the embeddings, and results are means over ten draws.
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Restores the residual vector after block ``layer`` at ``position``, under noise at the subject's tokens.

    Parameters: ``prompt``; ``start`` and ``stop``, the subject's tokens (``stop`` is not included); ``noise``, the
    standard deviation of what is added to their embeddings, drawn by the task's seed; ``layer`` and ``position``, what
    is restored; ``answer``, one token.
    Saves: the probability of ``answer`` after the last token, each ``[]``: ``clean``, ``corrupted`` under noise,
    ``restored`` under noise with the one vector put back.
    """
    with lm.trace() as t:
        subject = slice(param("start"), param("stop"))
        with t.invoke(param("prompt"), name="clean"):
            noise = param("noise") * torch.randn_like(lm.blocks[0].input[:, subject])
            vector = lm.blocks[param("layer")].residual[:, param("position")]
            _probability(lm).save("clean")
        with t.invoke(param("prompt"), name="corrupted"):
            lm.blocks[0].input[:, subject] += noise
            _probability(lm).save("corrupted")
        with t.invoke(param("prompt"), name="restored"):
            lm.blocks[0].input[:, subject] += noise
            lm.blocks[param("layer")].residual[:, param("position")] = vector
            _probability(lm).save("restored")
    return t


def _probability(lm: LanguageModel) -> Any:
    return lm.unembedding.output[0, -1].float().softmax(-1)[param("answer")]
