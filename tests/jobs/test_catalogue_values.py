"""The catalogue: each job computes what its docstring says, told again with PyTorch's own hooks on the plain model."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ndif_batch.engine.engine import Engine
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel
from tests.families import family
from tests.site_maps import info

ROOT = Path(__file__).parents[2]
CLEAN, CORRUPTED, PROMPT = (3, 14, 15, 9, 26, 5), (3, 14, 15, 92, 26, 5), (8, 9, 7, 9)
ANSWER, DISTRACTOR, POSITION, LAYER = 11, 12, 3, 1


def saved(job: str, **bindings: Any) -> dict[str, Tensor]:
    loaded = family("llama").loaded
    trace = runpy.run_path(str(ROOT / "jobs" / f"{job}.py"))["build"](LanguageModel(info(loaded.sites)))
    [outcome] = Engine(loaded).run([Task(trace.graph, bindings)])
    assert outcome.error is None
    return dict(outcome.saves)


@contextmanager
def changed(layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handle = native().model.layers[layer].register_forward_hook(lambda module, args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def native() -> Any:
    return family("llama").native


def logits(prompt: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        result: Tensor = native()(torch.tensor([prompt])).logits[0, -1]
    return result


def residual(prompt: tuple[int, ...], layer: int = LAYER) -> Tensor:
    """``[1, tokens, hidden]`` after a block."""
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        seen.append(output.clone())
        return output

    with changed(layer, keep):
        logits(prompt)
    return seen[0]


def difference(last: Tensor) -> float:
    return float(last[ANSWER] - last[DISTRACTOR])


def test_activation_patching_puts_one_clean_vector_into_the_corrupted_run() -> None:
    clean = residual(CLEAN)

    def patch(output: Tensor) -> Tensor:
        output[:, POSITION] = clean[:, POSITION]
        return output

    with changed(LAYER, patch):
        expected = difference(logits(CORRUPTED))
    bindings = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": ANSWER, "distractor": DISTRACTOR}
    found = saved("activation_patching", layer=LAYER, position=POSITION, **bindings)["logit_diff"]
    assert float(found) == pytest.approx(expected, abs=1e-4)
    assert abs(expected - difference(logits(CORRUPTED))) > 1e-2


def test_the_logit_lens_of_the_last_block_is_the_model_itself() -> None:
    last = torch.log_softmax(logits(PROMPT), -1)
    found = saved("logit_lens", prompt=PROMPT, layer=2, position=-1, target=ANSWER)
    assert float(found["target_log_prob"]) == pytest.approx(float(last[ANSWER]), abs=1e-4)
    assert found["top_tokens"].tolist() == last.topk(5).indices.tolist()
    torch.testing.assert_close(found["top_log_probs"], last.topk(5).values, rtol=0, atol=1e-4)


def test_the_logit_lens_of_an_earlier_block_goes_through_norm_and_unembedding() -> None:
    with torch.no_grad():
        seen = native().lm_head(native().model.norm(residual(PROMPT, 0)[0, 2])).log_softmax(-1)
    found = saved("logit_lens", prompt=PROMPT, layer=0, position=2, target=ANSWER)
    assert float(found["target_log_prob"]) == pytest.approx(float(seen[ANSWER]), abs=1e-4)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_steering_adds_the_scaled_direction_at_every_token(scale: float) -> None:
    direction = residual(CLEAN)[0, -1] - residual(CORRUPTED)[0, -1]
    with changed(LAYER, lambda output: output + scale * direction):
        expected = logits(PROMPT)
    bindings = {"positive": CLEAN, "negative": CORRUPTED, "prompt": PROMPT, "answer": ANSWER, "distractor": DISTRACTOR}
    found = saved("steering", layer=LAYER, scale=scale, **bindings)
    assert float(found["logit_diff"]) == pytest.approx(difference(expected), abs=1e-4)
    assert found["top_tokens"].tolist() == expected.topk(5).indices.tolist()


def test_patchscopes_puts_a_vector_of_the_source_into_another_layer_and_place_of_the_target() -> None:
    vector = residual(CLEAN, 2)[:, POSITION]

    def patch(output: Tensor) -> Tensor:
        output[:, -2] = vector
        return output

    with changed(0, patch):
        expected = torch.log_softmax(logits(PROMPT), -1)
    places = {"layer": 2, "position": POSITION, "target_layer": 0, "target_position": -2}
    found = saved("patchscopes", source=CLEAN, target=PROMPT, answer=ANSWER, **places)
    assert float(found["answer_log_prob"]) == pytest.approx(float(expected[ANSWER]), abs=1e-4)
    assert found["top_tokens"].tolist() == expected.topk(5).indices.tolist()
    assert abs(float(expected[ANSWER] - torch.log_softmax(logits(PROMPT), -1)[ANSWER])) > 1e-2


def test_representation_reading_measures_each_token_along_the_direction_between_two_prompts() -> None:
    positive, negative = residual(CLEAN)[0, -1], residual(CORRUPTED)[0, -1]
    found = saved("representation_reading", positive=CLEAN, negative=CORRUPTED, prompt=CLEAN, layer=LAYER)["score"]
    distance = (positive - negative).norm()
    expected = (residual(CLEAN)[0] - (positive + negative) / 2) @ (positive - negative) / distance
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float(found[-1]) == pytest.approx(float(distance) / 2, abs=1e-4)


def test_cache_residuals_saves_the_residual_stream_of_every_token() -> None:
    found = saved("cache_residuals", prompt=PROMPT, layer=LAYER)["residual"]
    torch.testing.assert_close(found, residual(PROMPT)[0], rtol=0, atol=1e-4)


PAIR = {"answer": ANSWER, "distractor": DISTRACTOR}


def gradient(prompt: tuple[int, ...], layer: int, change: Callable[[Tensor], Tensor] = lambda output: output) -> Tensor:
    """Of the logit difference by what block ``layer`` puts out, once that is changed."""
    seen: list[Tensor] = []

    def keep(output: Tensor) -> Tensor:
        seen.append(change(output).detach().requires_grad_())
        return seen[0]

    with changed(layer, keep):
        last = native()(torch.tensor([prompt])).logits[0, -1]
    return torch.autograd.grad(last[ANSWER] - last[DISTRACTOR], seen[0])[0]


def test_attribution_patching_is_the_change_of_each_vector_times_its_gradient() -> None:
    found = saved("attribution_patching", clean=CLEAN, corrupted=CORRUPTED, **PAIR)
    expected = [
        ((residual(CLEAN, layer) - residual(CORRUPTED, layer)) * gradient(CORRUPTED, layer))[0].sum(-1)
        for layer in range(3)
    ]
    torch.testing.assert_close(found["attribution"], torch.stack(expected), rtol=0, atol=1e-4)
    assert float(found["clean_logit_diff"]) == pytest.approx(difference(logits(CLEAN)), abs=1e-4)
    assert float(found["corrupted_logit_diff"]) == pytest.approx(difference(logits(CORRUPTED)), abs=1e-4)
    assert found["attribution"].abs().max() > 1e-2


def test_attribution_patching_after_the_last_block_sees_the_last_token_alone() -> None:
    estimate = saved("attribution_patching", clean=CLEAN, corrupted=CORRUPTED, **PAIR)["attribution"][2]
    assert not estimate[:-1].any()
    assert estimate[-1].abs() > 1e-3


def test_integrated_gradients_are_the_mean_gradient_on_the_way_times_the_way() -> None:
    """What goes into block 2 is what block 1 puts out."""
    found = saved("integrated_gradients", prompt=CLEAN, baseline=CORRUPTED, layer=2, **PAIR)
    start, way = residual(CORRUPTED, 1), residual(CLEAN, 1) - residual(CORRUPTED, 1)

    def at(step: int) -> Callable[[Tensor], Tensor]:
        return lambda output: start + (step + 0.5) / 16 * way

    mean = torch.stack([gradient(CLEAN, 1, at(step)) for step in range(16)]).mean(0)
    torch.testing.assert_close(found["attribution"], (mean * way)[0].sum(-1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_integrated_gradients_add_up_to_the_change_of_the_logit_difference(layer: int) -> None:
    found = saved("integrated_gradients", prompt=CLEAN, baseline=CORRUPTED, layer=layer, **PAIR)
    change = float(found["logit_diff"] - found["baseline_logit_diff"])
    assert float(found["logit_diff"]) == pytest.approx(difference(logits(CLEAN)), abs=1e-4)
    assert abs(change) > 1e-2
    assert float(found["attribution"].sum()) == pytest.approx(change, rel=0.1)
