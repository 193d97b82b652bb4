"""What a pass is estimated to take on a GPU, and what becomes of tasks that do not fit."""

import gc
import re
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.memory import peak_of
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.sweep.task import Task

pytestmark = pytest.mark.gpu

LAYERS, TOKENS, VOCABULARY = 8, 32, 32_000
INTEGERS = {"layer": ParamType.INT, "position": ParamType.INT}
CLEAN = Run("clean", tuple(range(100, 100 + TOKENS)))
CORRUPTED = Run("corrupted", tuple(range(200, 200 + TOKENS)))
SITE = "model.layers.{layer}.output"
AT = (0, ParamRef("position"))


@cache
def model() -> LoadedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 8}
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, num_hidden_layers=LAYERS, **sizes)
    return wrap(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).cuda())  # type: ignore[no-untyped-call]


def patching() -> list[Task]:
    nodes = (
        Node("read", run=0, site=SITE),
        Node("getitem", (NodeRef(0), AT)),
        Node("write", (NodeRef(1),), run=1, site=SITE, index=AT),
        Node("read", run=1, site="lm_head.output"),
        Node("getitem", (NodeRef(3), (0, -1))),
        Node("save", (NodeRef(4),), name="logits"),
    )
    return grid(Graph(INTEGERS, (CLEAN, CORRUPTED), nodes))


def steering() -> list[Task]:
    nodes = (
        Node("read", run=0, site=SITE),
        Node("mul", (NodeRef(0), 1.5)),
        Node("write", (NodeRef(1),), run=0, site=SITE),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(3), (0, -1))),
        Node("save", (NodeRef(4),), name="logits"),
    )
    return distinct(Graph({"layer": ParamType.INT, "prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes))


def logit_lens() -> list[Task]:
    nodes = (
        Node("read", run=0, site=SITE),
        Node("call", (NodeRef(0),), site="model.norm"),
        Node("call", (NodeRef(1),), site="lm_head"),
        Node("cast", (NodeRef(2), "float32")),
        Node("softmax", (NodeRef(3),), (("dim", -1),)),
        Node("save", (NodeRef(4),), name="probabilities"),
    )
    return distinct(Graph({"layer": ParamType.INT, "prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes))


def differentiating() -> list[Task]:
    nodes = (
        Node("read", run=0, site=SITE),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(1), (0, -1, 3))),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(0), NodeRef(3))),
        Node("save", (NodeRef(4),), name="gradient"),
    )
    return distinct(Graph({"layer": ParamType.INT, "prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes))


def caching() -> list[Task]:
    nodes = tuple(
        node
        for layer in range(LAYERS)
        for node in (
            Node("read", run=0, site=f"model.layers.{layer}.output"),
            Node("save", (NodeRef(2 * layer),), name=f"layer{layer}"),
        )
    )
    graph = Graph({"prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes)
    return [Task(graph, {"prompt": tuple(range(i, i + TOKENS))}) for i in range(256)]


def grid(graph: Graph) -> list[Task]:
    return [Task(graph, {"layer": at, "position": p}) for at in range(LAYERS) for p in range(TOKENS)] * 2


def distinct(graph: Graph) -> list[Task]:
    return [Task(graph, {"layer": i % LAYERS, "prompt": tuple(range(i, i + TOKENS))}) for i in range(128)]


@pytest.fixture(autouse=True)
def empty_memory() -> None:
    model()
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("method", [patching, steering, logit_lens, caching])
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(method: object) -> None:
    tasks = method()  # type: ignore[operator]
    engine = Engine(model())
    list(Engine(model()).run(tasks[:2]))
    with peak_of(model().device) as found:
        outcomes = list(engine.run(tasks))
    assert engine.counters.passes == 1
    assert not any(outcome.error for outcome in outcomes)
    estimated = engine.counters.estimated_bytes
    assert 0.75 * found[0] <= estimated <= 1.25 * found[0], f"estimated {estimated}, measured {found[0]}"


def test_what_gradients_take_is_estimated_and_not_less_than_measured() -> None:
    tasks = differentiating()
    engine = Engine(model())
    list(Engine(model()).run(tasks[:2]))
    with peak_of(model().device) as found:
        outcomes = list(engine.run(tasks))
    assert not any(outcome.error for outcome in outcomes)
    estimated = engine.counters.estimated_bytes
    assert 0.9 * found[0] <= estimated <= 3 * found[0], f"estimated {estimated}, measured {found[0]}"


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A process that may have 120 MiB more than the model."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 120 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_what_does_not_fit_together_runs_in_several_passes(little_memory: None) -> None:
    engine = Engine(model())
    outcomes = list(engine.run(logit_lens()))
    assert not any(outcome.error for outcome in outcomes)
    assert engine.counters.passes > 1


def test_gradients_that_do_not_fit_are_computed_in_pieces(little_memory: None) -> None:
    engine = Engine(model())
    outcomes = list(engine.run(differentiating()))
    assert not any(outcome.error for outcome in outcomes)
    assert engine.counters.passes > 1


def test_a_task_that_does_not_fit_alone_fails_alone_and_says_how_many_bytes_it_needs(little_memory: None) -> None:
    huge = Graph({}, (CLEAN,), (Node("zeros", ((2**28,),)), Node("save", (NodeRef(0),), name="z")))
    tasks = [*caching()[:4], Task(huge), *caching()[4:8]]
    found = sorted(Engine(model()).run(tasks), key=lambda outcome: outcome.index)
    assert [outcome.error is None for outcome in found] == [True] * 4 + [False] + [True] * 4
    told = re.search(r"it needs about (\d+) bytes", str(found[4].error))
    assert told is not None
    assert 2**30 <= int(told.group(1)) <= 1.25 * 2**30
