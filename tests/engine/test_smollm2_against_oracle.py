"""The catalogue on a real model, with real text, tasks of all methods together, against the oracle."""

import importlib
from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import load
from ndif_batch.graph.nodes import Value
from ndif_batch.models import demo
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel
from tests.families import Subject
from tests.oracle import assert_equal, oracle

CLEAN = "After Mary and John went to the grocery store, John gave a bottle of milk to"
CORRUPTED = "After Mary and John went to the grocery store, Mary gave a bottle of milk to"
NAMES: dict[str, Value] = {"answer": " Mary", "distractor": " John"}
TASKS: list[tuple[str, dict[str, Value]]] = [
    ("activation_patching", {"clean": CLEAN, "corrupted": CORRUPTED, "layer": 5, "position": 10, **NAMES}),
    ("activation_patching", {"clean": CLEAN, "corrupted": CORRUPTED, "layer": 27, "position": -1, **NAMES}),
    ("logit_lens", {"prompt": "The capital of France is", "layer": 20, "position": -1, "target": " Paris"}),
    (
        "steering",
        {"positive": "Love", "negative": "Hate", "prompt": "I think dogs are", "layer": 6, "scale": 4.0, **NAMES},
    ),
    ("attribution_patching", {"clean": CLEAN, "corrupted": CORRUPTED, **NAMES}),
    ("cache_residuals", {"prompt": "Attention is all you need", "layer": 14}),
]


@pytest.fixture(scope="module")
def info() -> ModelInfo:
    from ndif_batch.config import load_settings  # here: GPU machines have the engine's libraries alone

    return demo.add(load_settings().model_cache)


@pytest.fixture(scope="module")
def smollm2(info: ModelInfo) -> Iterator[Subject]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    native = AutoModelForCausalLM.from_pretrained(info.weights, dtype=torch.float32)
    native.train(False)
    yield Subject(load(info, "cpu"), native)
    torch.set_num_threads(threads)


def test_all_methods_together_on_a_real_model_equal_the_oracle(info: ModelInfo, smollm2: Subject) -> None:
    lm = LanguageModel(info)
    graphs = {name: importlib.import_module(f"jobs.{name}").build(lm).graph for name, _ in TASKS}
    tasks = [Task(graphs[name], bindings) for name, bindings in TASKS]
    outcomes = {outcome.index: outcome for outcome in Engine(smollm2.loaded).run(tasks)}
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        for save, value in oracle(smollm2, task).items():
            assert_equal(f"{TASKS[index][0]} {save}", outcomes[index].saves[save], value)


def test_the_model_knows_what_the_demonstration_asks(smollm2: Subject, info: ModelInfo) -> None:
    graph = importlib.import_module("jobs.activation_patching").build(LanguageModel(info)).graph
    early = {"clean": CLEAN, "corrupted": CORRUPTED, "layer": 0, **NAMES}
    nothing, name = (Task(graph, {**early, "position": position}) for position in (3, 10))
    found = {o.index: float(o.saves["logit_diff"]) for o in Engine(smollm2.loaded).run([nothing, name])}
    assert found[0] < -4
    assert found[1] > 4
