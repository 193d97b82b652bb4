"""Sparse autoencoder, splicing: what a model loses if it must go on from the reconstruction.

The residual stream after a block is encoded and decoded, and the result takes its place at every token.

Sources: Bricken et al. 2023, "Towards Monosemanticity" (transformer-circuits.pub/2023/monosemantic-features); Gao et
al. 2024, "Scaling and evaluating sparse autoencoders" (arXiv:2406.04093), for the loss after splicing.
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Splices the reconstruction into ``prompt`` after block ``layer``.

    Parameters: ``prompt``; ``layer``; the autoencoder's ``encoder`` ``[hidden, features]``, ``encoder_bias``
    ``[features]``, ``decoder`` ``[features, hidden]`` and ``decoder_bias`` ``[hidden]``.
    Saves: ``divergence`` ``[token]``, Kullback-Leibler from the model's own next-token probabilities (nats);
    ``unexplained`` ``[token]``, squared error of the reconstruction as a share of the squared norm; ``active``
    ``[token]``, the number of active features.
    """
    with lm.trace() as t:
        with t.invoke(param("prompt"), name="whole"):
            own = lm.unembedding.output[0].float().log_softmax(-1)
        with t.invoke(param("prompt"), name="spliced"):
            h = lm.blocks[param("layer")].residual.float().clone()
            features, reconstruction = _through(h)
            lm.blocks[param("layer")].residual[...] = reconstruction
            spliced: Any = lm.unembedding.output[0].float().log_softmax(-1)
        (own.exp() * (own - spliced)).sum(-1).save("divergence", dims=("token",))
        error: Any = (reconstruction - h)[0].square().sum(-1) / h[0].square().sum(-1)
        error.save("unexplained", dims=("token",))
        (features[0] > 0).sum(-1).save("active", dims=("token",))
    return t


def _through(h: Any) -> tuple[Any, Any]:
    names = ("encoder", "encoder_bias", "decoder", "decoder_bias")
    encoder, encoder_bias, decoder, decoder_bias = (param(name, type="tensor")[...].float() for name in names)
    features: Any = torch.relu((h - decoder_bias) @ encoder + encoder_bias)
    return features, features @ decoder + decoder_bias
