"""Function vectors: a task that demonstrations show, as one vector that makes the model do it without them.

What chosen heads put out at the last token of a prompt with demonstrations goes through their output projections and is
added up. The sum is added to the residual stream at the last token of a prompt that shows nothing. Where a block norms
what attention gives (Gemma 2 and 3), it is the sum before that norm.

Source: Todd et al. 2024, "Function Vectors in Large Language Models" (arXiv:2310.15213), where the vector is a mean
over prompts: average ``vector`` over yours.
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Adds the function vector of ``demonstrations`` to ``prompt`` after block ``layer``.

    Parameters: ``demonstrations`` and ``prompt``; ``heads`` ``[layer, head]``, 1 for each head that is chosen and 0
    for the others; ``layer``; ``answer``, one token.
    Saves: ``vector`` ``[hidden]``; the log probability (nats) of ``answer`` after ``prompt``, each ``[]``: ``plain``,
    and ``answer_log_prob`` with the vector added.
    """
    with lm.trace() as t:
        with t.invoke(param("demonstrations")):
            last = [attention.heads[0, -1] for attention in lm.attentions]
        vector: Any = 0.0
        for layer, (projection, heads) in enumerate(zip(lm.output_projections, last, strict=True)):
            others = param("heads", type="tensor")[layer].unsqueeze(-1) == 0
            chosen = heads.masked_fill(others, 0.0).flatten()
            vector = vector + projection(chosen) - projection(chosen * 0)
        vector.save("vector", dims=("hidden",))
        with t.invoke(param("prompt"), name="plain"):
            _log_prob(lm).save("plain")
        with t.invoke(param("prompt"), name="steered"):
            lm.blocks[param("layer")].residual[:, -1] += vector
            _log_prob(lm).save("answer_log_prob")
    return t


def _log_prob(lm: LanguageModel) -> Any:
    return lm.unembedding.output[0, -1].float().log_softmax(-1)[param("answer")]
