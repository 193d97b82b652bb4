"""Attention patterns: which tokens each head looks at, from every token.

A pattern is the softmax of a head's scores: row by row how a token divides its attention among those that it sees. It
says where a head looks, not what it does with what it sees there.

Sources: Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762); Clark et al. 2019, "What Does BERT Look
At?" (arXiv:1906.04341); Jain and Wallace 2019, "Attention is not Explanation" (arXiv:1902.10186).
"""

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Saves the attention weights of every head of one block.

    Parameters: ``prompt``; ``layer``.
    Saves: ``pattern`` ``[head, query, key]``, both as long as the prompt.
    """
    with lm.trace(param("prompt")) as t:
        lm.attentions[param("layer")].pattern[0].save("pattern", dims=("head", "query", "key"))
    return t
