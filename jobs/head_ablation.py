"""Head ablation: what the answer loses without one attention head.

What the head puts out is replaced at every token: by zero, and by its mean over the tokens of a reference prompt.

Sources: Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?" (arXiv:1905.10650), for zeros; Wang
et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593), for means.
"""

from typing import Any

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Ablates one head of ``prompt`` in two ways.

    Parameters: ``prompt`` and ``reference``, of any length; ``layer`` and ``head``; ``answer`` and ``distractor``, one
    token each.
    Saves: the last token's logit of ``answer`` less that of ``distractor``, each ``[]``: ``logit_diff`` of the whole
    model, ``zero`` and ``mean`` without the head.
    """
    with lm.trace() as t:
        attention = lm.attentions[param("layer")]
        with t.invoke(param("reference")):
            mean = attention.heads[:, :, param("head")].float().mean(1, keepdim=True)
        with t.invoke(param("prompt")):
            _difference(lm).save("logit_diff")
        for name, value in (("zero", 0.0), ("mean", mean)):
            with t.invoke(param("prompt"), name=name):
                attention.heads[:, :, param("head")] = value
                _difference(lm).save(name)
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
