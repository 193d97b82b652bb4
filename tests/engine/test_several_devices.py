"""A model whose blocks lie in different places gives what it would give in one."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from transformers import PreTrainedModel

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run
from ndif_batch.sweep.task import Task
from tests.families import FAMILIES, Subject, blocks, family
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle


@pytest.fixture(params=FAMILIES)
def spread(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """The first block in memory, the others and the final norm on the disk until they are needed."""
    whole = family(request.param)
    first, *others = blocks(whole.loaded)
    places = dict.fromkeys(modules_beside(whole.native, first.rpartition(".")[0]), "cpu")
    places |= {first: "cpu", **dict.fromkeys(others, "disk")}
    places |= {name: "disk" for name in places if name.endswith((".norm", ".ln_f"))}
    model = dispatch_model(
        deepcopy(whole.native), places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    return Subject(wrap(model), whole.native)


def modules_beside(model: PreTrainedModel, blocks_path: str) -> list[str]:
    """Every module outside the list of blocks, as few names as do."""
    base, _, own = blocks_path.partition(".")
    beside = [name for name, _ in model.named_children() if name != base]
    return beside + [f"{base}.{name}" for name, _ in model.get_submodule(base).named_children() if name != own]


def test_random_graphs_on_a_model_in_pieces_equal_the_oracle(spread: Subject) -> None:
    assert spread.loaded.spread
    assert spread.loaded.layout.packed
    tasks = [random_task(seed, spread.loaded.sites) for seed in range(30)]
    for outcome in Engine(spread.loaded).run(tasks):
        assert outcome.error is None, outcome.error
        for save, value in oracle(spread, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)


def test_a_weight_that_rests_on_the_disk_can_be_read(spread: Subject) -> None:
    last = blocks(spread.loaded)[-1]
    path = next(
        name for name in spread.loaded.sites.weights if name.startswith(f"{last}.mlp") and name.endswith("weight")
    )
    graph = Graph({}, (Run("r", (1, 2)),), (Node("weight", site=path), Node("save", (NodeRef(0),), name="w")))
    outcome = next(Engine(spread.loaded).run([Task(graph)]))
    assert torch.equal(outcome.saves["w"], spread.native.get_parameter(path))
