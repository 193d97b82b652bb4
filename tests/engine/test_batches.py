"""Tasks are cut into passes also by what they save, which stays in main memory until it is written."""

from __future__ import annotations

import pytest

from ndif_batch.engine import batches
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.oracle import assert_equal, oracle


def reading(*saves: str) -> Graph:
    """Saves the residual after the second block once under each name."""
    read = Node("read", run=0, site="model.layers.1.output")
    nodes = (read, *(Node("save", (NodeRef(0),), name=name) for name in saves))
    return Graph({"prompt": ParamType.PROMPT}, (Run("run", ParamRef("prompt")),), nodes)


@pytest.mark.parametrize(("saves", "passes"), [(("a",), 2), (("a", "b"), 4)])
def test_a_pass_saves_no_more_than_may_lie_in_memory(
    saves: tuple[str, ...], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, length, width = family("llama"), 6, 48
    monkeypatch.setattr(batches, "MOST_SAVED", 4 * length * width * 4)
    prompts = [tuple(range(3 + n, 3 + n + length)) for n in range(8)]
    tasks = [Task(reading(*saves), {"prompt": prompt}) for prompt in prompts]
    engine = Engine(subject.loaded)
    outcomes = sorted(engine.run(tasks), key=lambda outcome: outcome.index)
    assert engine.counters.passes == passes
    for task, outcome in zip(tasks, outcomes, strict=True):
        for name, value in oracle(subject, task).items():
            assert_equal(name, outcome.saves[name], value)


def test_a_task_that_saves_more_than_that_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_SAVED", 1)
    engine = Engine(family("llama").loaded)
    outcomes = list(engine.run([Task(reading("a"), {"prompt": (3, 4, n)}) for n in range(5, 8)]))
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert engine.counters.passes == 3
