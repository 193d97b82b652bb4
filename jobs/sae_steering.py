"""Sparse autoencoder, steering: what the model says when one feature is held at a value.

At every token the residual stream is moved along the feature's decoder direction, from the value that the feature has
there to ``value``. What the autoencoder does not explain stays as it is.

Source: Templeton et al. 2024, "Scaling Monosemanticity" (transformer-circuits.pub/2024/scaling-monosemanticity).
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Holds ``feature`` at ``value`` after block ``layer``, at every token of ``prompt``.

    Parameters: ``prompt``; ``layer``; ``feature``, its number; ``value``, 0 to switch it off; ``answer``, one token;
    the autoencoder's ``encoder`` ``[hidden, features]``, ``encoder_bias`` ``[features]``, ``decoder`` ``[features,
    hidden]`` and ``decoder_bias`` ``[hidden]``.
    Saves: ``answer_log_prob`` ``[]`` (nats); ``activation`` ``[token]``, the feature before; ``top_tokens`` and
    ``top_log_probs`` ``[rank]``, the five most probable next tokens.
    """
    with lm.trace(param("prompt")) as t:
        encoder = param("encoder", type="tensor")[:, param("feature")].float()
        bias = param("encoder_bias", type="tensor")[param("feature")].float()
        decoder = param("decoder", type="tensor")[param("feature")].float()
        residual = lm.blocks[param("layer")].residual
        centred = residual.float() - param("decoder_bias", type="tensor")[...].float()
        activation = (centred @ encoder + bias).relu()
        residual[...] = residual + (param("value") - activation).unsqueeze(-1) * decoder
        activation[0].save("activation", dims=("token",))
        log_probs = lm.unembedding.output[0, -1].float().log_softmax(-1)
        log_probs[param("answer")].save("answer_log_prob")
        top = log_probs.topk(TOP)
        top.indices.save("top_tokens", dims=("rank",))
        top.values.save("top_log_probs", dims=("rank",))
    return t
