"""Transcoders: an MLP's work done by sparse features, and what the model loses by it.

A transcoder reads what the MLP reads and gives what the MLP adds: ``features = relu(x @ encoder + encoder_bias)``,
``features @ decoder + decoder_bias``. It takes the MLP's place at every token.

Source: Dunefsky, Chlenski and Nanda 2024, "Transcoders Find Interpretable LLM Feature Circuits" (arXiv:2406.11944).
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Encodes the MLP's input of block ``layer``, and puts what is decoded in the place of its output.

    Parameters: ``prompt``; ``layer``; the transcoder's ``encoder`` ``[hidden, features]``, ``encoder_bias``
    ``[features]``, ``decoder`` ``[features, hidden]`` and ``decoder_bias`` ``[hidden]``.
    Saves: ``features`` ``[token, feature]``; ``unexplained`` ``[token]``, squared error of the output as a share of its
    squared norm; ``divergence`` ``[token]``, Kullback-Leibler from the model's own next-token probabilities (nats).
    """
    names = ("encoder", "encoder_bias", "decoder", "decoder_bias")
    with lm.trace() as t:
        encoder, encoder_bias, decoder, decoder_bias = (param(name, type="tensor")[...].float() for name in names)
        with t.invoke(param("prompt"), name="whole"):
            features: Any = (lm.mlp_inputs[param("layer")].input.float() @ encoder + encoder_bias).relu()
            truth = lm.mlp_outputs[param("layer")].residual.float()
            own = lm.unembedding.output[0].float().log_softmax(-1)
        output = features @ decoder + decoder_bias
        with t.invoke(param("prompt"), name="spliced"):
            lm.mlp_outputs[param("layer")].residual[...] = output
            spliced: Any = lm.unembedding.output[0].float().log_softmax(-1)
        features.flatten(0, -2).save("features", dims=("token", "feature"))
        error: Any = (output - truth).square().sum(-1) / truth.square().sum(-1)
        error.flatten().save("unexplained", dims=("token",))
        (own.exp() * (own - spliced)).sum(-1).save("divergence", dims=("token",))
    return t
