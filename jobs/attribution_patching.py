"""Attribution patching: what activation patching would find, for every block and token at once, by one gradient.

To first order, a residual vector of the clean run in place of the corrupted run's changes the logit difference by their
difference times its gradient in the corrupted run. Two runs and one way back stand for a patched run of each of them.
Where the model is far from linear, in early blocks above all, check what stands out with ``activation_patching``.

Sources: Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale" (neelnanda.io); Syed, Rager and
Conmy 2023, "Attribution Patching Outperforms Automated Circuit Discovery" (arXiv:2310.10348); Kramár et al. 2024,
"AtP*" (arXiv:2403.00745), on where it goes wrong.
"""

from typing import Any

import torch

from ndif_batch.trace import LanguageModel, Trace, param


def build(lm: LanguageModel) -> Trace:
    """Estimates what the residual stream of ``clean`` would change in ``corrupted``, after each block at each token.

    Parameters: ``clean`` and ``corrupted``, prompts of equal length in tokens; ``answer`` and ``distractor``, one token
    each.
    Saves: ``attribution`` ``[layer, token]``, the estimated change of the logit difference; ``clean_logit_diff`` and
    ``corrupted_logit_diff`` ``[]``, the last token's logit of ``answer`` less that of ``distractor``.
    """
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = [block.residual for block in lm.blocks[:]]
            _difference(lm).save("clean_logit_diff")
        with t.invoke(param("corrupted")):
            corrupted = [block.residual for block in lm.blocks[:]]
            difference = _difference(lm).save("corrupted_logit_diff")
            difference.backward()
            changes = [((a - b) * b.grad)[0].float().sum(-1) for a, b in zip(clean, corrupted, strict=True)]
            attribution: Any = torch.stack(changes)
            attribution.save("attribution", dims=("layer", "token"))
    return t


def _difference(lm: LanguageModel) -> Any:
    logits = lm.unembedding.output[0, -1]
    return logits[param("answer")] - logits[param("distractor")]
