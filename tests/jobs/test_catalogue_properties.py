"""The catalogue: what each method must give where the answer is known beforehand, and the same told with hooks."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import TensorRef
from ndif_batch.sweep.task import Task
from ndif_batch.trace.constants import take
from tests.families import ALL, TOKENS, Subject, family, random_subject
from tests.jobs.test_catalogue_values import (
    ANSWER,
    CLEAN,
    CORRUPTED,
    DISTRACTOR,
    LAYER,
    PAIR,
    POSITION,
    PROMPT,
    ROOT,
    difference,
    logits,
    native,
    residual,
)
from tests.recording import recorder

HIDDEN = 48
PATCH = {"clean": CLEAN, "corrupted": CORRUPTED, **PAIR}
IDENTITY = torch.eye(HIDDEN)
PERFECT = {
    "encoder": torch.cat([IDENTITY, -IDENTITY], 1),
    "encoder_bias": torch.zeros(2 * HIDDEN),
    "decoder": torch.cat([IDENTITY, -IDENTITY], 0),
    "decoder_bias": torch.zeros(HIDDEN),
}
"""relu(x) - relu(-x) is x."""


def saved(job: str, subject: Subject | None = None, /, **bindings: Any) -> dict[str, Tensor]:
    subject, constants = subject or family("llama"), dict[str, Any]()
    trace = runpy.run_path(str(ROOT / "jobs" / f"{job}.py"))["build"](recorder(subject))
    bound = {k: TensorRef(take(constants, v)) if isinstance(v, Tensor) else v for k, v in bindings.items()}
    [outcome] = Engine(subject.loaded).run([Task(trace.graph, bound)], constants=constants)
    assert outcome.error is None, outcome.error
    return dict(outcome.saves)


def close(found: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=0, atol=1e-4)


def block(layer: int = LAYER) -> Any:
    return native().model.layers[layer]


@contextmanager
def written(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Changes what a module puts out, or the first item of it."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def output(module: nn.Module, prompt: tuple[int, ...]) -> Tensor:
    """What a module puts out, ``[1, tokens, …]``."""
    seen: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        seen.append(value.clone())
        return value

    with written(module, keep):
        logits(prompt)
    return seen[0]


def put(values: Tensor, position: Any = slice(None)) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, position] = values[:, position]
        return value

    return change


def without(module: nn.Module, change: Callable[[Tensor], Tensor]) -> float:
    with written(module, change):
        return difference(logits(CORRUPTED))


def test_component_patching_puts_what_one_component_adds_into_the_corrupted_run() -> None:
    found = saved("component_patching", layer=LAYER, position=POSITION, **PATCH)
    for name, module in (("attention", block().self_attn), ("mlp", block().mlp)):
        expected = without(module, put(output(module, CLEAN), POSITION))
        close(found[name], expected)
        assert abs(expected - difference(logits(CORRUPTED))) > 1e-3


def test_neuron_patching_changes_one_entry_before_the_down_projection() -> None:
    neuron, module = 17, block().mlp.down_proj
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    for prompt in (CLEAN, CORRUPTED):
        logits(prompt)
    handle.remove()
    change = (seen[0] - seen[1])[0, POSITION, neuron] * module.weight[:, neuron].detach()

    def add(value: Tensor) -> Tensor:
        value[:, POSITION] += change
        return value

    found = saved("neuron_patching", layer=LAYER, position=POSITION, neuron=neuron, **PATCH)
    close(found["logit_diff"], without(module, add))
    close(found["clean_activation"], seen[0][0, POSITION, neuron])
    close(found["corrupted_activation"], seen[1][0, POSITION, neuron])


@pytest.mark.parametrize("job", ["component_patching", "head_patching", "neuron_patching", "path_patching"])
def test_patching_a_prompt_with_itself_changes_nothing(job: str) -> None:
    places = {"layer": LAYER, "position": POSITION, "neuron": 3, "sender": 0, "receiver": 2, "head": 1}
    params = recorded_params(job)
    bindings = {**PATCH, "clean": CORRUPTED, **places}
    found = saved(job, **{name: value for name, value in bindings.items() if name in params})
    for name, value in found.items():
        if "activation" not in name:
            close(value, difference(logits(CORRUPTED)))


def recorded_params(job: str) -> Any:
    return runpy.run_path(str(ROOT / "jobs" / f"{job}.py"))["build"](recorder(family("llama"))).graph.params


HEADS, WIDTH = 4, 12


def heads_of(prompt: tuple[int, ...], layer: int) -> Tensor:
    """What goes into the output projection, ``[1, tokens, head, width]``."""
    seen: list[Tensor] = []
    handle = block(layer).self_attn.o_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    logits(prompt)
    handle.remove()
    return seen[0].reshape(1, len(prompt), HEADS, WIDTH)


def projected(layer: int, head: int, values: Tensor) -> Tensor:
    """What a head's values ``[…, width]`` add to the residual stream."""
    weight: Tensor = block(layer).self_attn.o_proj.weight.detach()
    return values @ weight[:, head * WIDTH : (head + 1) * WIDTH].T


def of_head(layer: int, head: int) -> Tensor:
    """How far a head's output in the clean run is from that in the corrupted run."""
    return projected(layer, head, (heads_of(CLEAN, layer) - heads_of(CORRUPTED, layer))[:, :, head])


def test_the_direct_path_adds_the_heads_change_to_the_last_residual() -> None:
    found = saved("path_patching", sender=0, head=1, receiver=2, **PATCH)
    change = of_head(0, 1)
    with torch.no_grad():
        last = native().lm_head(native().model.norm(residual(CORRUPTED, 2) + change))[0, -1]
    close(found["direct"], difference(last))
    close(found["total"], without(block(0).self_attn, lambda value: value + change))
    close(found["corrupted_logit_diff"], difference(logits(CORRUPTED)))


def test_the_path_through_a_receiver_is_what_its_attention_makes_of_the_heads_change() -> None:
    change = of_head(0, 1)
    with written(block(1), lambda value: value + change):
        received = output(block(2).self_attn, CORRUPTED)
    expected = without(block(2).self_attn, put(received))
    close(saved("path_patching", sender=0, head=1, receiver=2, **PATCH)["through"], expected)
    assert abs(expected - difference(logits(CORRUPTED))) > 1e-3


def test_where_one_path_is_all_there_is_it_is_the_whole_effect() -> None:
    """Behind the last block's attention there is its MLP alone: without that, the direct path is all."""
    found = saved("path_patching", sender=2, head=0, receiver=1, **PATCH)
    change = of_head(2, 0)
    with written(block(2).mlp, put(output(block(2).mlp, CORRUPTED))):
        close(found["direct"], without(block(2).self_attn, lambda value: value + change))


def test_no_path_leads_backwards() -> None:
    found = saved("path_patching", sender=2, head=0, receiver=1, **PATCH)
    close(found["through"], found["corrupted_logit_diff"])
    assert abs(float(found["direct"] - found["corrupted_logit_diff"])) > 1e-3


def test_head_patching_puts_one_head_at_one_token_into_the_corrupted_run() -> None:
    change = of_head(LAYER, 2)

    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, POSITION] += change[:, POSITION]
        return value

    expected = without(block().self_attn, add)
    close(saved("head_patching", layer=LAYER, head=2, position=POSITION, **PATCH)["logit_diff"], expected)
    assert abs(expected - difference(logits(CORRUPTED))) > 1e-3


def test_head_ablation_takes_one_head_away_or_leaves_its_mean() -> None:
    found = saved("head_ablation", prompt=CORRUPTED, reference=PROMPT, layer=LAYER, head=3, **PAIR)
    own, mean = heads_of(CORRUPTED, LAYER)[:, :, 3], heads_of(PROMPT, LAYER)[:, :, 3].mean(1, keepdim=True)
    for name, left in (("zero", torch.zeros_like(own)), ("mean", mean)):
        change = projected(LAYER, 3, left - own)
        close(found[name], without(block().self_attn, partial(torch.add, change)))
    assert abs(float(found["zero"] - found["logit_diff"])) > 1e-3


def test_mean_ablation_leaves_the_given_means() -> None:
    means = {"attention": torch.linspace(-1, 1, HIDDEN), "mlp": torch.linspace(1, 0, HIDDEN)}
    given = {f"{name}_mean": value for name, value in means.items()}
    found = saved("mean_ablation", prompt=CORRUPTED, layer=LAYER, **given, **PAIR)
    for name, module in (("attention", block().self_attn), ("mlp", block().mlp)):
        mean = means[name]
        close(found[name], without(module, mean.expand_as))


def test_attention_patterns_are_the_softmax_of_the_scores() -> None:
    model = deepcopy(native())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT]), output_attentions=True).attentions[LAYER][0]
    close(saved("attention_patterns", prompt=PROMPT, layer=LAYER)["pattern"], expected)


LENGTH = 5


@pytest.mark.parametrize(("kind", "back"), [("induction", LENGTH - 1), ("duplicate", LENGTH), ("previous", 1)])
def test_a_head_that_was_made_of_one_kind_scores_one_there_and_nowhere_else(kind: str, back: int) -> None:
    found = saved("induction_scores", looking_back(back), prompt=(10, 11, 12, 13, 14) * 2, length=LENGTH)
    for name, scores in found.items():
        expected = torch.full((1, HEADS), float(name == kind))
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)


def looking_back(tokens: int) -> Subject:
    """A model of one block, whose heads attend from each place to that ``tokens`` before.

    It sees places only, as unit vectors; a query is the key of the place it looks at.
    """
    config = AutoConfig.for_model("gpt2", **{**ALL["gpt2"], "n_layer": 1}, **TOKENS)
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(config)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.copy_(10 * torch.eye(64, HIDDEN))
        weight = model.transformer.h[0].attn.c_attn.weight.zero_()
        for head in range(HEADS):
            for place in range(WIDTH):
                weight[place, HIDDEN + head * WIDTH + place] = 1
                if place >= tokens:
                    weight[place, head * WIDTH + place - tokens] = 3
    return Subject(wrap(model), model)


def test_a_function_vector_of_no_heads_changes_nothing_and_of_one_head_is_its_output() -> None:
    where = {"demonstrations": CLEAN, "prompt": PROMPT, "layer": LAYER, "answer": ANSWER}
    plain = logits(PROMPT).log_softmax(-1)[ANSWER]
    none = saved("function_vectors", heads=torch.zeros(3, HEADS), **where)
    close(none["vector"], torch.zeros(HIDDEN))
    close(none["answer_log_prob"], plain)
    heads = torch.zeros(3, HEADS)
    heads[0, 1] = heads[2, 3] = 1
    found = saved("function_vectors", heads=heads, **where)
    first, last = (projected(layer, head, heads_of(CLEAN, layer)[0, -1, head]) for layer, head in ((0, 1), (2, 3)))
    vector = first + last

    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, -1] += vector
        return value

    with written(block(), add):
        expected = logits(PROMPT).log_softmax(-1)[ANSWER]
    close(found["vector"], vector)
    close(found["answer_log_prob"], expected)
    close(found["plain"], plain)
    assert abs(float(expected - plain)) > 1e-3


def test_causal_tracing_without_noise_changes_nothing_and_the_last_vector_restores_everything() -> None:
    where = {"prompt": CLEAN, "start": 1, "stop": 3, "answer": ANSWER}
    quiet = saved("causal_tracing", layer=0, position=2, noise=0.0, **where)
    probability = logits(CLEAN).softmax(-1)[ANSWER]
    for value in quiet.values():
        close(value, probability)
    loud = saved("causal_tracing", layer=2, position=-1, noise=3.0, **where)
    close(loud["restored"], probability)
    assert abs(float(loud["corrupted"] / loud["clean"] - 1)) > 1e-2


def test_ablation_replaces_a_component_by_zero_by_a_mean_and_by_another_prompts() -> None:
    found = saved("ablation", prompt=CORRUPTED, reference=CLEAN, layer=LAYER, **PAIR)
    for i, module in enumerate((block().self_attn, block().mlp)):
        other = output(module, CLEAN)
        close(found["zero"][i], without(module, torch.zeros_like))
        close(found["mean"][i], without(module, put(other.mean(1, keepdim=True).expand_as(other))))
        close(found["resample"][i], without(module, put(other)))
    assert (found["zero"] - found["logit_diff"]).abs().min() > 1e-3
    same = saved("ablation", prompt=CLEAN, reference=CLEAN, layer=LAYER, **PAIR)
    close(same["resample"], same["logit_diff"].expand(2))


def test_the_tuned_lens_with_translators_of_zero_is_the_logit_lens() -> None:
    where = {"prompt": PROMPT, "layer": 0, "position": 2, "target": ANSWER}
    zero = {"down": torch.zeros(3, HIDDEN, 2), "up": torch.zeros(3, 2, HIDDEN), "bias": torch.zeros(3, HIDDEN)}
    plain = saved("logit_lens", **where)
    for name, value in saved("tuned_lens", **where, **zero).items():
        close(value, plain[name])


def test_the_tuned_lens_reads_what_its_layers_translator_makes() -> None:
    generator = torch.Generator().manual_seed(1)
    down, up, bias = (
        torch.randn(shape, generator=generator) for shape in ((3, HIDDEN, 2), (3, 2, HIDDEN), (3, HIDDEN))
    )
    h = residual(PROMPT, 1)[0, 2]
    with torch.no_grad():
        expected = native().lm_head(native().model.norm(h + h @ down[1] @ up[1] + bias[1])).log_softmax(-1)
    found = saved("tuned_lens", prompt=PROMPT, layer=1, position=2, target=ANSWER, down=down, up=up, bias=bias)
    close(found["target_log_prob"], expected[ANSWER])


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "olmo", "phi", "glm4"])
def test_direct_attributions_add_up_to_the_logit_difference(name: str) -> None:
    """Norms with and without mean, bias and gain; norms behind components; components in parallel."""
    subject = family(name)
    found = saved("direct_logit_attribution", subject, prompt=PROMPT, answer=ANSWER, distractor=DISTRACTOR)
    scale = max(float(value.abs().max()) for value in found.values())
    assert float(sum_of_shares(found) - found["logit_diff"]) == pytest.approx(0, abs=1e-4 * scale)
    assert float(found["rest"].abs().max()) < 1e-4 * scale
    assert float(found["attention"].abs().max()) > 1e-2 * scale
    with torch.no_grad():
        own = subject.native(torch.tensor([PROMPT])).logits[0, -1]
    assert float(found["logit_diff"]) == pytest.approx(difference(own), abs=1e-4 * scale)


def sum_of_shares(found: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.sum() for save, value in found.items() if save != "logit_diff"]).sum()


def test_a_share_is_the_components_output_along_the_normed_direction() -> None:
    last = residual(PROMPT, 2)[0, -1]
    norm, head = native().model.norm, native().lm_head.weight.detach()
    direction = (head[ANSWER] - head[DISTRACTOR]) * norm.weight.detach() * (last.square().mean() + 1e-6).rsqrt()
    found = saved("direct_logit_attribution", prompt=PROMPT, answer=ANSWER, distractor=DISTRACTOR)
    close(found["attention"][1], output(block(1).self_attn, PROMPT)[0, -1] @ direction)
    close(found["mlp"][2], output(block(2).mlp, PROMPT)[0, -1] @ direction)


def test_a_block_that_scales_its_parts_shows_it_in_the_rest() -> None:
    subject = random_subject("granite", **ALL["granite"], residual_multiplier=0.5)
    found = saved("direct_logit_attribution", subject, prompt=PROMPT, answer=ANSWER, distractor=DISTRACTOR)
    close(sum_of_shares(found), found["logit_diff"])
    assert float(found["rest"].abs().max()) > 1e-3


def test_probe_data_are_one_tokens_residuals_and_the_label() -> None:
    found = saved("probe_data", prompt=PROMPT, position=-2, label=1.0)
    close(found["residual"], torch.stack([residual(PROMPT, layer)[0, -2] for layer in range(3)]))
    assert float(found["labels"]) == 1


def test_the_difference_of_means_steers_as_activation_addition_does() -> None:
    pair = {"positive": CLEAN, "negative": CORRUPTED}
    direction = saved("difference_of_means", layer=LAYER, position=-1, **pair)["difference"]
    close(direction, residual(CLEAN)[0, -1] - residual(CORRUPTED)[0, -1])
    steered = {"prompt": PROMPT, "layer": LAYER, **PAIR}
    found = saved("contrastive_activation_addition", scale=3.0, direction=direction, **steered)
    for name, value in saved("steering", scale=3.0, **pair, **steered).items():
        close(found[name], value)
    still = saved("contrastive_activation_addition", scale=0.0, direction=direction, **steered)
    close(still["logit_diff"], difference(logits(PROMPT)))


def test_a_perfect_dictionary_explains_everything_and_changes_nothing() -> None:
    found = saved("sae_splice", prompt=PROMPT, layer=LAYER, **PERFECT)
    close(found["divergence"], torch.zeros(len(PROMPT)))
    close(found["unexplained"], torch.zeros(len(PROMPT)))
    assert found["active"].tolist() == [HIDDEN] * len(PROMPT)


def test_features_are_the_rectified_projections_on_the_encoder() -> None:
    weights = {name: PERFECT[name] for name in ("encoder", "encoder_bias", "decoder_bias")}
    weights |= {"encoder_bias": torch.full((2 * HIDDEN,), 0.25), "decoder_bias": torch.full((HIDDEN,), 0.5)}
    h = residual(PROMPT)[0] - 0.5
    expected = torch.cat([h + 0.25, 0.25 - h], 1).relu()
    close(saved("sae_features", prompt=PROMPT, layer=LAYER, **weights)["features"], expected)


def test_an_empty_dictionary_leaves_its_bias_alone() -> None:
    bias = torch.linspace(-1, 1, HIDDEN)
    nothing = {name: torch.zeros_like(value) for name, value in PERFECT.items()} | {"decoder_bias": bias}
    found = saved("sae_splice", prompt=PROMPT, layer=LAYER, **nothing)
    with written(block(), lambda value: bias.expand_as(value)):
        spliced = logits(PROMPT).log_softmax(-1)
    own = logits(PROMPT).log_softmax(-1)
    close(found["divergence"][-1], (own.exp() * (own - spliced)).sum())
    assert found["active"].sum() == 0


def test_a_feature_is_held_by_moving_the_stream_along_its_decoder() -> None:
    feature = 7
    found = saved("sae_steering", prompt=PROMPT, layer=LAYER, feature=feature, value=2.0, answer=ANSWER, **PERFECT)
    before = residual(PROMPT)[..., feature].relu()

    def hold(value: Tensor) -> Tensor:
        value[..., feature] += 2 - before
        return value

    with written(block(), hold):
        expected = logits(PROMPT).log_softmax(-1)
    close(found["activation"], before[0])
    close(found["answer_log_prob"], expected[ANSWER])


def test_a_transcoder_of_zeros_takes_the_mlp_away() -> None:
    zeros = {name: torch.zeros_like(value) for name, value in PERFECT.items()}
    found = saved("transcoder", prompt=PROMPT, layer=LAYER, **zeros)
    own = logits(PROMPT).log_softmax(-1)
    with written(block().mlp, torch.zeros_like):
        spliced = logits(PROMPT).log_softmax(-1)
    close(found["divergence"][-1], (own.exp() * (own - spliced)).sum())
    close(found["unexplained"], torch.ones(len(PROMPT)))


def test_a_transcoder_encodes_what_the_mlp_reads() -> None:
    found = saved("transcoder", prompt=PROMPT, layer=LAYER, **PERFECT)
    read = output(block().post_attention_layernorm, PROMPT)[0]
    close(found["features"], torch.cat([read, -read], 1).relu())
