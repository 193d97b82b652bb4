"""Every method of the catalogue on families of models: random tasks of all of them together, against the oracle."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.errors import ModelError
from ndif_batch.graph.nodes import Graph, TensorRef
from ndif_batch.sweep.task import Task
from ndif_batch.trace import Trace
from ndif_batch.trace.constants import take
from tests.families import VOCABULARY, Subject, family
from tests.oracle import assert_equal, oracle
from tests.recording import recorder

FAMILIES = ("gpt2", "llama", "qwen3", "gemma3_text", "gpt_neox", "opt", "mixtral", "gpt_oss", "bert")
REFUSED = " [not-in-this-version]"
LAYERS, HEADS, HIDDEN, FEATURES, RANK = 3, 4, 48, 7, 2
TASKS = 2
LOGIT = 0.1
"""Most methods save differences of logits, whose rounding is that of the logits, however small the difference."""

Draw = Callable[[random.Random], dict[str, Any]]


def prompt(rng: random.Random, tokens: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCABULARY) for _ in range(tokens))


def prompts(*names: str) -> Draw:
    """Prompts of any length each."""
    return lambda rng: {name: prompt(rng, rng.randint(1, 9)) for name in names}


def pair(*names: str) -> Draw:
    """Prompts of one length, and a position in them."""

    def draw(rng: random.Random) -> dict[str, Any]:
        tokens = rng.randint(2, 9)
        return {**{name: prompt(rng, tokens) for name in names}, "position": rng.randrange(tokens)}

    return draw


def values(**choices: Any) -> Draw:
    """One of the choices for each name."""
    return lambda rng: {name: rng.choice(list(some)) for name, some in choices.items()}


def tensors(**shapes: tuple[int, ...]) -> Draw:
    """Random tensors."""

    def draw(rng: random.Random) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        return {name: torch.randn(shape, generator=generator) / 4 for name, shape in shapes.items()}

    return draw


def traced(rng: random.Random) -> dict[str, Any]:
    tokens = rng.randint(3, 9)
    start = rng.randrange(tokens - 1)
    where = {"start": start, "stop": rng.randint(start + 1, tokens), "position": rng.randrange(tokens)}
    return {"prompt": prompt(rng, tokens), **where}


def repeated(rng: random.Random) -> dict[str, Any]:
    length = rng.randint(1, 5)
    return {"prompt": prompt(rng, length) * 2, "length": length}


def chosen(rng: random.Random) -> dict[str, Any]:
    return {"heads": torch.tensor([[float(rng.random() < 0.5) for _ in range(HEADS)] for _ in range(LAYERS)])}


ANSWER = values(answer=[5], distractor=[9])
LAYER = values(layer=range(LAYERS))
HEAD = values(head=range(HEADS))
CONTRAST = prompts("positive", "negative", "prompt")
SCALE = values(scale=[0.0, 1.5, -3.0])
LAST = values(position=[-1])
DICTIONARY = tensors(
    encoder=(HIDDEN, FEATURES), encoder_bias=(FEATURES,), decoder=(FEATURES, HIDDEN), decoder_bias=(HIDDEN,)
)
TRANSLATORS = tensors(down=(LAYERS, HIDDEN, RANK), up=(LAYERS, RANK, HIDDEN), bias=(LAYERS, HIDDEN))

METHODS: Mapping[str, tuple[Draw, ...]] = {
    "ablation": (pair("prompt", "reference"), LAYER, ANSWER),
    "activation_patching": (pair("clean", "corrupted"), LAYER, ANSWER),
    "attribution_patching": (pair("clean", "corrupted"), ANSWER),
    "attention_patterns": (prompts("prompt"), LAYER),
    "cache_residuals": (prompts("prompt"), LAYER),
    "causal_tracing": (traced, LAYER, ANSWER, values(noise=[0.5, 2.0])),
    "component_patching": (pair("clean", "corrupted"), LAYER, ANSWER),
    "contrastive_activation_addition": (prompts("prompt"), LAYER, ANSWER, SCALE, tensors(direction=(HIDDEN,))),
    "difference_of_means": (prompts("positive", "negative"), LAYER, LAST),
    "direct_logit_attribution": (prompts("prompt"), ANSWER),
    "function_vectors": (prompts("demonstrations", "prompt"), LAYER, ANSWER, chosen),
    "head_ablation": (prompts("prompt", "reference"), LAYER, HEAD, ANSWER),
    "head_patching": (pair("clean", "corrupted"), LAYER, HEAD, ANSWER),
    "induction_scores": (repeated,),
    "integrated_gradients": (pair("prompt", "baseline"), LAYER, ANSWER),
    "logit_lens": (prompts("prompt"), LAYER, LAST, values(target=range(VOCABULARY))),
    "mean_ablation": (prompts("prompt"), LAYER, ANSWER, tensors(attention_mean=(HIDDEN,), mlp_mean=(HIDDEN,))),
    "neuron_patching": (pair("clean", "corrupted"), LAYER, ANSWER, values(neuron=range(96))),
    "patchscopes": (
        prompts("source", "target"),
        LAYER,
        LAST,
        values(target_layer=range(LAYERS), target_position=[-1]),
        ANSWER,
    ),
    "path_patching": (
        pair("clean", "corrupted"),
        values(sender=range(LAYERS), receiver=range(LAYERS)),
        HEAD,
        ANSWER,
    ),
    "probe_data": (prompts("prompt"), LAST, values(label=[0.0, 1.0])),
    "representation_reading": (CONTRAST, LAYER),
    "sae_features": (prompts("prompt"), LAYER, DICTIONARY),
    "sae_splice": (prompts("prompt"), LAYER, DICTIONARY),
    "sae_steering": (prompts("prompt"), LAYER, ANSWER, DICTIONARY, values(feature=range(FEATURES), value=[0.0, 3.0])),
    "steering": (CONTRAST, LAYER, SCALE, ANSWER),
    "steering_generation": (CONTRAST, LAYER, SCALE, values(temperature=[0.5, 2.0])),
    "transcoder": (prompts("prompt"), LAYER, DICTIONARY),
    "tuned_lens": (prompts("prompt"), LAYER, LAST, values(target=range(VOCABULARY)), TRANSLATORS),
}
"""What a task of each method binds; what a graph does not take is left out."""


def recorded(subject: Subject, method: str) -> Trace:
    trace: Trace = importlib.import_module(f"jobs.{method}").build(recorder(subject))
    return trace


def drawn(graph: Graph, draws: tuple[Draw, ...], rng: random.Random, constants: dict[str, Any]) -> dict[str, Any]:
    """Random bindings of a graph; tensors are put beside ``constants``."""
    found = {name: value for draw in draws for name, value in draw(rng).items() if name in graph.params}
    return {
        name: TensorRef(take(constants, value)) if isinstance(value, torch.Tensor) else value
        for name, value in found.items()
    }


def cell(reason: str) -> str:
    """What the page of methods says of a method and a family."""
    return f"not applicable: {reason}" if reason else "equal"


def tasks_of(
    subject: Subject, rng: random.Random, constants: dict[str, Any]
) -> tuple[list[tuple[str, Task]], dict[str, str]]:
    """Random tasks of each method, and why there are none of some; tensors are put beside ``constants``."""
    reasons: dict[str, str] = {}
    tasks: list[tuple[str, Task]] = []
    for method, draws in METHODS.items():
        try:
            trace = recorded(subject, method)
        except ModelError as error:
            reasons[method] = re.sub(r"^\S+:\d+: | at .*$", "", error.message)
            continue
        constants |= trace.constants
        for number in range(TASKS):
            bindings = drawn(trace.graph, draws, rng, constants)
            tasks.append((method, Task(trace.graph, bindings, seed=number)))
    rng.shuffle(tasks)
    return tasks, reasons


@cache
def applied(name: str, seed: int = 0) -> Mapping[str, str]:
    """Why each method cannot be applied to a family; empty where its tasks were equal to the oracle.

    ``AssertionError`` if one saves something else than it would alone.
    """
    subject, constants = family(name), dict[str, Any]()
    tasks, reasons = tasks_of(subject, random.Random(f"{name} {seed}"), constants)
    engine = Engine(subject.loaded, max_batch_tokens=128)
    compared = set()
    for outcome in engine.run([task for _, task in tasks], constants=constants):
        method, task = tasks[outcome.index]
        if outcome.error is not None:
            assert REFUSED in str(outcome.error), (method, outcome.error)
            reasons[method] = str(outcome.error).replace(REFUSED, "")
            continue
        truth = oracle(subject, task, constants)
        assert outcome.saves.keys() == truth.keys()
        for save, value in truth.items():
            assert_equal(f"{name}, {method}, {save}", outcome.saves[save], value, least=LOGIT)
        compared.add(method)
    assert compared.isdisjoint(reasons)
    assert compared | reasons.keys() == METHODS.keys()
    return {method: reasons.get(method, "") for method in METHODS}
