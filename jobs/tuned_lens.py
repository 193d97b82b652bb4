"""The tuned lens: the logit lens through an affine translator that was trained for each block.

The residual stream after block ``layer`` is translated into what it will be after the last block, then read through the
final norm and the unembedding. Translators are given in two factors, so that one of low rank stays small; a full matrix
is its own ``down`` with the identity as ``up``.

Source: Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens" (arXiv:2303.08112).
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Reads ``h + h @ down @ up + bias`` at one layer and position as next-token probabilities.

    Parameters: ``prompt``; ``layer``; ``position``, from the end if negative; ``target``, one token; ``down``
    ``[layer, hidden, rank]``, ``up`` ``[layer, rank, hidden]`` and ``bias`` ``[layer, hidden]``, the translators.
    Saves: ``target_log_prob`` ``[]`` (nats); ``top_tokens`` and ``top_log_probs`` ``[rank]``, the five most probable.
    """
    with lm.trace(param("prompt")) as t:
        translated = lm.blocks[param("layer")].residual[0, param("position")].clone()
        h = translated.float()
        down, up, bias = (param(name, type="tensor")[param("layer")].float() for name in ("down", "up", "bias"))
        translated[...] = h + h @ down @ up + bias
        log_probs = lm.unembedding(lm.final_norm(translated)).float().log_softmax(-1)
        log_probs[param("target")].save("target_log_prob")
        top = log_probs.topk(TOP)
        top.indices.save("top_tokens", dims=("rank",))
        top.values.save("top_log_probs", dims=("rank",))
    return t
