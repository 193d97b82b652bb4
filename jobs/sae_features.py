"""Sparse autoencoder, encoding: which features of a dictionary are active at which token.

``features = relu((h - decoder_bias) @ encoder + encoder_bias)`` of the residual stream ``h`` after a block.

Sources: Cunningham et al. 2023, "Sparse Autoencoders Find Highly Interpretable Features in Language Models"
(arXiv:2309.08600); Bricken et al. 2023, "Towards Monosemanticity"
(transformer-circuits.pub/2023/monosemantic-features).
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Encodes the residual stream of ``prompt`` after block ``layer``.

    Parameters: ``prompt``; ``layer``; the autoencoder's ``encoder`` ``[hidden, features]``, ``encoder_bias``
    ``[features]`` and ``decoder_bias`` ``[hidden]``.
    Saves: ``features`` ``[token, feature]``, as long as the prompt.
    """
    with lm.trace(param("prompt")) as t:
        centred = lm.blocks[param("layer")].residual[0].float() - param("decoder_bias", type="tensor")[...].float()
        encoder, bias = (param(name, type="tensor")[...].float() for name in ("encoder", "encoder_bias"))
        (centred @ encoder + bias).relu().save("features", dims=("token", "feature"))
    return t
