"""The engine on a GPU: the same values as the oracle on the CPU, and models in pieces on both."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy

import pytest
import torch
from accelerate import dispatch_model

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.sweep.task import Task
from tests.engine.test_several_devices import modules_beside
from tests.families import FAMILIES, Subject, blocks, family
from tests.generating import random_generation
from tests.graphs import random_task
from tests.oracle import Restless, Unknown, assert_equal, deviation, oracle

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", FAMILIES)
def test_random_graphs_on_cuda_equal_the_oracle(name: str) -> None:
    whole = family(name)
    check(Subject(wrap(torch.nn.Module.cuda(deepcopy(whole.native))), whole.native))


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_on_cuda_and_in_main_memory_equal_the_oracle(name: str) -> None:
    whole = family(name)
    first, second, third = blocks(whole.loaded)
    places: dict[str, str | int] = dict.fromkeys(modules_beside(whole.native, first.rpartition(".")[0]), 0)
    places |= {first: 0, second: "cpu", third: 0}
    check(Subject(wrap(dispatch_model(deepcopy(whole.native), places)), whole.native))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_on_cuda_equal_the_oracle(name: str) -> None:
    whole = family(name)
    check(Subject(wrap(torch.nn.Module.cuda(deepcopy(whole.native))), whole.native), gradients=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_through_blocks_on_cuda_and_in_main_memory_equal_the_oracle(name: str) -> None:
    whole = family(name)
    first, second, third = blocks(whole.loaded)
    places: dict[str, str | int] = dict.fromkeys(modules_beside(whole.native, first.rpartition(".")[0]), 0)
    places |= {first: 0, second: "cpu", third: 0}
    check(Subject(wrap(dispatch_model(deepcopy(whole.native), places)), whole.native), gradients=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_generations_on_cuda_equal_the_oracle(name: str) -> None:
    whole = family(name)
    loaded = wrap(torch.nn.Module.cuda(deepcopy(whole.native)))
    tasks = [random_generation(seed, loaded.sites) for seed in range(40)]
    found = {outcome.index: outcome for outcome in Engine(loaded, max_batch_tokens=60).run(tasks)}
    compared = 0
    for index, task in enumerate(tasks):
        with suppress(Restless, Unknown, IndexError, RuntimeError, ValueError):
            truth = oracle(whole, task)
            if found[index].error is None:
                for save, value in truth.items():
                    assert_equal(save, found[index].saves[save], value)
                compared += 1
    assert compared > 20


def test_gradients_in_half_precision_are_those_of_a_pass_alone_up_to_rounding() -> None:
    """Many groups of half precision, as the kernel takes them that is for values alone."""
    whole = family("llama")
    model = wrap(torch.nn.Module.cuda(deepcopy(whole.native)).bfloat16())
    nodes = (
        Node("read", run=0, site="model.layers.{layer}.output"),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(1), (0, -1, 3))),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(0), NodeRef(3))),
        Node("save", (NodeRef(4),), name="x"),
    )
    graph = Graph({"layer": ParamType.INT, "prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes)
    tasks = [Task(graph, {"layer": n % 3, "prompt": tuple(range(3, 6 + n % 7))}) for n in range(42)]
    alone, together = (
        sorted(Engine(model).run(tasks, layout=layout), key=lambda outcome: outcome.index)
        for layout in ("solo", "auto")
    )
    for one, other in zip(alone, together, strict=True):
        assert one.error is other.error is None
        assert deviation(other.saves["x"].float(), one.saves["x"].float()) < 0.1


def check(subject: Subject, *, gradients: bool = False) -> None:
    loaded: LoadedModel = subject.loaded
    assert loaded.layout.packed
    assert loaded.device.type == "cuda"
    tasks = [random_task(seed, loaded.sites, gradients=gradients) for seed in range(200)]
    for outcome in Engine(loaded).run(tasks):
        assert outcome.error is None, outcome.error
        for save, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)


def test_an_index_outside_fails_its_task_and_leaves_the_gpu_well() -> None:
    whole = family("llama")
    subject = Subject(wrap(torch.nn.Module.cuda(deepcopy(whole.native))), whole.native)
    run = (Run("r", (1, 2, 3)),)
    far = (Node("arange", (90, 99)), Node("read", run=0, site="model.layers.1.output"))
    taken = Graph(
        {}, run, (*far, Node("getitem", (NodeRef(1), (0, NodeRef(0)))), Node("save", (NodeRef(2),), name="x"))
    )
    looked = Graph(
        {}, run, (*far, Node("call", (NodeRef(0),), site="model.embed_tokens"), Node("save", (NodeRef(2),), name="x"))
    )
    well = Task(Graph({}, run, (far[1], Node("save", (NodeRef(0),), name="x"))))
    found = sorted(Engine(subject.loaded).run([Task(taken), well, Task(looked), well]), key=lambda o: o.index)
    assert [outcome.error is None for outcome in found] == [False, True, False, True]
    torch.cuda.synchronize()
    assert_equal("x", found[3].saves["x"], oracle(subject, well)["x"])
