"""The logit lens: what the model would say if it stopped after this block.

The residual stream after block ``layer`` is read as if that were the last block: through the final norm and the
unembedding.

Sources: nostalgebraist 2020, "interpreting GPT: the logit lens" (lesswrong.com/posts/AcKRB8wDpdaN6v6ru); Belrose et
al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens" (arXiv:2303.08112), which says where it
misleads.
"""

from ndif_batch.trace import LanguageModel, Trace, param

TOP = 5


def build(lm: LanguageModel) -> Trace:
    """Reads the residual stream at one layer and position as next-token probabilities.

    Parameters: ``prompt``; ``layer``; ``position``, from the end if negative; ``target``, one token.
    Saves: ``target_log_prob`` ``[]`` (nats); ``top_tokens`` and ``top_log_probs`` ``[rank]``, the five most probable.
    """
    with lm.trace(param("prompt")) as t:
        residual = lm.blocks[param("layer")].residual[0, param("position")]
        log_probs = lm.unembedding(lm.final_norm(residual)).float().log_softmax(-1)
        log_probs[param("target")].save("target_log_prob")
        top = log_probs.topk(TOP)
        top.indices.save("top_tokens", dims=("rank",))
        top.values.save("top_log_probs", dims=("rank",))
    return t
