"""Every method of the catalogue on every family, the tasks of all methods together, against the oracle."""

import importlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.sweep.task import Task
from tests.families import FAMILIES, VOCABULARY, family
from tests.oracle import assert_equal, oracle
from tests.recording import recorder

LAYERS = 3


def prompt(rng: random.Random, tokens: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCABULARY) for _ in range(tokens))


def patching(rng: random.Random) -> dict[str, object]:
    tokens = rng.randint(2, 9)
    clean, corrupted = prompt(rng, tokens), prompt(rng, tokens)
    return {"clean": clean, "corrupted": corrupted, "position": rng.randrange(tokens), "answer": 5, "distractor": 9}


def lens(rng: random.Random) -> dict[str, object]:
    return {"prompt": prompt(rng, rng.randint(1, 9)), "position": -1, "target": rng.randrange(VOCABULARY)}


def steering(rng: random.Random) -> dict[str, object]:
    prompts = {name: prompt(rng, rng.randint(1, 9)) for name in ("positive", "negative", "prompt")}
    return {**prompts, "scale": rng.choice([0.0, 1.5, -3.0]), "answer": 5, "distractor": 9}


def steered(rng: random.Random) -> dict[str, object]:
    prompts = {name: prompt(rng, rng.randint(1, 9)) for name in ("positive", "negative", "prompt")}
    return {**prompts, "scale": rng.choice([0.0, 1.5]), "temperature": rng.choice([0.5, 2.0])}


def caching(rng: random.Random) -> dict[str, object]:
    return {"prompt": prompt(rng, rng.randint(1, 9))}


def patchscopes(rng: random.Random) -> dict[str, object]:
    prompts = {name: prompt(rng, rng.randint(1, 9)) for name in ("source", "target")}
    return {**prompts, "position": -1, "target_layer": rng.randrange(LAYERS), "target_position": -1, "answer": 5}


def reading(rng: random.Random) -> dict[str, object]:
    return {name: prompt(rng, rng.randint(1, 9)) for name in ("positive", "negative", "prompt")}


def attributing(rng: random.Random) -> dict[str, object]:
    tokens = rng.randint(2, 9)
    return {"clean": prompt(rng, tokens), "corrupted": prompt(rng, tokens), "answer": 5, "distractor": 9}


def integrating(rng: random.Random) -> dict[str, object]:
    tokens = rng.randint(2, 9)
    return {"prompt": prompt(rng, tokens), "baseline": prompt(rng, tokens), "answer": 5, "distractor": 9}


METHODS: dict[str, Callable[[random.Random], dict[str, object]]] = {
    "activation_patching": patching,
    "logit_lens": lens,
    "steering": steering,
    "steering_generation": steered,
    "cache_residuals": caching,
    "patchscopes": patchscopes,
    "representation_reading": reading,
    "attribution_patching": attributing,
    "integrated_gradients": integrating,
}


def test_every_method_of_the_catalogue_is_here() -> None:
    assert set(METHODS) == {path.stem for path in Path("jobs").glob("*.py")}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_all_methods_together_equal_the_oracle(name: str, seed: int) -> None:
    subject = family(name)
    rng = random.Random(seed)
    tasks = [
        Task(graph, {**draw(rng), **({"layer": layer} if "layer" in graph.params else {})}, seed=layer)  # type: ignore[dict-item]
        for method, draw in METHODS.items()
        for graph in [importlib.import_module(f"jobs.{method}").build(recorder(subject)).graph]
        for layer in range(LAYERS)
        for _ in range(2)
    ]
    rng.shuffle(tasks)
    found = list(Engine(subject.loaded, max_batch_tokens=128).run(tasks))
    assert len(found) == len(tasks)
    for outcome in found:
        assert outcome.error is None, outcome.error
        for save, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)
