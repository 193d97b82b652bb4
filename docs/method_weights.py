"""Makes the small tensors that sweeps of the catalogue bind: ``configs/sweeps/weights/smollm2-135m.safetensors``.

The model reads some text, the older pages of ``docs/decisions``, and what it computes there is fitted: translators of
the tuned lens by least squares of low rank, an autoencoder of block 20's residual stream and a transcoder of its MLP by
gradient descent, means of what components add. They are as good as 2,500 tokens make them: enough to show a method, not
to study the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ndif_batch import Client, param

HERE = Path(__file__).resolve().parent
FILE = HERE.parent / "configs" / "sweeps" / "weights" / "smollm2-135m.safetensors"
LAYER, FEATURES, RANK = 20, 32, 2
HEADS = slice(8, 17)
"""Blocks whose heads make the function vector."""

PIECE, PIECES = 128, 20
"""Tokens of a piece of text, and how many pieces are read."""

LOVED = ("I love this so much", "What a wonderful evening", "The food was great", "She is the kindest friend")
HATED = ("I hate this so much", "What a terrible evening", "The food was awful", "She is the cruelest enemy")


def main() -> None:
    """Writes the file anew."""
    torch.manual_seed(0)
    with Client.demo() as client:
        seen = _seen(client.language_model("smollm2-135m"))
        direction = _direction(client.language_model("smollm2-135m"))
    residuals = seen["residuals"]
    lens = [_translator(residuals[layer], residuals[-1]) for layer in range(len(residuals))]
    down, up, bias = (torch.stack(part) for part in zip(*lens, strict=True))
    tensors = {"down": down, "up": up, "bias": bias, "direction": direction}
    stream = residuals[LAYER]
    tensors |= {f"sae_{name}": value for name, value in _dictionary(stream, stream, centred=True).items()}
    fitted = _dictionary(seen["mlp_input"], seen["mlp"], centred=False)
    tensors |= {f"transcoder_{name}": value for name, value in fitted.items()}
    tensors |= {f"{name}_mean": seen[name].mean(0) for name in ("attention", "mlp")}
    tensors["heads"] = torch.zeros(30, 9)
    tensors["heads"][HEADS] = 1
    FILE.parent.mkdir(exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in tensors.items()}, FILE)


def _seen(lm: Any) -> dict[str, Tensor]:
    """What the model computes on text: ``[tokens, hidden]``, ``residuals`` of every block before them."""
    with lm.trace(param("prompt")) as t:
        stack: Any = torch.stack([block.residual[0, 1:] for block in lm.blocks])
        lm.mlp_inputs[LAYER].input[0, 1:].save("mlp_input")
        lm.mlp_outputs[LAYER].residual[0, 1:].save("mlp")
        lm.attention_outputs[LAYER].residual[0, 1:].save("attention")
        stack.save("residuals")
    pages = sorted((HERE / "decisions").glob("2026-11-*.md"))
    tokens = lm.info.tokenizer.encode("\n".join(page.read_text() for page in pages))
    runs = [t.run(prompt=tokens[i * PIECE : (i + 1) * PIECE]) for i in range(PIECES)]
    return {name: torch.cat([torch.as_tensor(run[name]) for run in runs], -2) for name in runs[0]}


def _direction(lm: Any) -> Tensor:
    """The mean difference between prompts of love and of hate, at their last token."""
    with lm.trace(param("prompt")) as t:
        lm.blocks[LAYER].residual[0, -1].save("vector")
    loved, hated = (
        torch.stack([torch.as_tensor(t.run(prompt=text)["vector"]) for text in texts]) for texts in (LOVED, HATED)
    )
    return (loved - hated).mean(0)


def _translator(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``down``, ``up`` and ``bias`` that best give ``after`` as ``before + before @ down @ up + bias``."""
    mean = before.mean(0)
    x, y = before - mean, (after - before) - (after - before).mean(0)
    ridge = 0.1 * x.square().sum() / x.shape[1] * torch.eye(x.shape[1])
    whole = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    up = torch.linalg.svd(x @ whole, full_matrices=False)[2][:RANK]
    down = whole @ up.T
    return down, up, (after - before).mean(0) - mean @ down @ up


def _dictionary(x: Tensor, y: Tensor, *, centred: bool) -> dict[str, Tensor]:
    """An encoder of ``x`` into few active features, and a decoder of them into ``y``."""
    bias = y.mean(0)
    shift = bias if centred else torch.zeros(x.shape[1])
    decoder = torch.linalg.svd(y - bias, full_matrices=False)[2][:FEATURES].clone()
    weights = {"encoder": torch.randn(x.shape[1], FEATURES) / x.shape[1], "decoder": decoder}
    weights |= {"encoder_bias": torch.zeros(FEATURES), "decoder_bias": bias.clone()}
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.Adam(weights.values(), lr=3e-3)
    total = (y - bias).square().sum()
    for _ in range(600):
        features = ((x - shift) @ weights["encoder"] + weights["encoder_bias"]).relu()
        error = (features @ weights["decoder"] + weights["decoder_bias"] - y).square().sum() / total
        sparsity = (features * weights["decoder"].norm(dim=1)).sum() / total.sqrt() / len(x) ** 0.5
        optimizer.zero_grad()
        (error + 0.03 * sparsity).backward()
        optimizer.step()
        if centred:
            shift = weights["decoder_bias"].detach()
    return {name: weight.detach() for name, weight in weights.items()}


if __name__ == "__main__":
    main()
