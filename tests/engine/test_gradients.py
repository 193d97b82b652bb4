"""Gradients of many tasks at once are those of each alone."""

from __future__ import annotations

import pytest

from ndif_batch.engine.engine import Engine, LayoutChoice
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import Subject, blocks, family
from tests.oracle import assert_equal, oracle

ALL = SliceArg()
RUNS = (Run("r", ParamRef("prompt")),)
PARAMS = {"prompt": ParamType.PROMPT, "answer": ParamType.INT, "distractor": ParamType.INT}


def residual_gradient(path: str, head: str) -> Graph:
    """By the residual stream after a block, of the difference of two logits of the last token."""
    nodes = (
        Node("read", run=0, site=path),
        Node("read", run=0, site=f"{head}.output"),
        Node("getitem", (NodeRef(1), (0, -1, ParamRef("answer")))),
        Node("getitem", (NodeRef(1), (0, -1, ParamRef("distractor")))),
        Node("sub", (NodeRef(2), NodeRef(3))),
        Node("backward", (NodeRef(4),)),
        Node("grad", (NodeRef(0), NodeRef(5))),
        Node("save", (NodeRef(6),), name="gradient"),
        Node("save", (NodeRef(4),), name="difference"),
    )
    return Graph(PARAMS, RUNS, nodes)


def check(subject: Subject, tasks: list[Task], layout: LayoutChoice = "auto") -> Engine:
    engine = Engine(subject.loaded)
    outcomes = sorted(engine.run(tasks, layout=layout), key=lambda outcome: outcome.index)
    assert len(outcomes) == len(tasks)
    for outcome, task in zip(outcomes, tasks, strict=True):
        assert outcome.error is None, outcome.error
        truth = oracle(subject, task)
        assert outcome.saves.keys() == truth.keys()
        for name, value in truth.items():
            assert_equal(f"{task}, {name}", outcome.saves[name], value)
    return engine


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradients_of_a_logit_difference_at_every_block_equal_the_oracle(name: str) -> None:
    subject = family(name)
    prompts = [(5, 6, 7, 8), (9, 3), (5, 6, 7, 8), (11, 12, 13)]
    tasks = [
        Task(residual_gradient(f"{block}.output", "lm_head"), {"prompt": prompt, "answer": 3 + n, "distractor": 50})
        for block in blocks(subject.loaded)
        for n, prompt in enumerate(prompts)
    ]
    engine = check(subject, tasks)
    assert engine.counters.passes == 1


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj"])
def test_a_task_that_does_not_fit_is_checkpointed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = family(name)
    tasks = [Task(residual_gradient("x", "lm_head"), {"prompt": (5, 6, 7, 8), "answer": 3, "distractor": 50})]
    monkeypatch.setattr("ndif_batch.engine.engine.free_for_passes", lambda model: 1)
    tasks = [
        Task(residual_gradient(f"{block}.output", "lm_head"), {"prompt": (5, 6, 7, 8), "answer": n, "distractor": 50})
        for n, block in enumerate(blocks(subject.loaded))
    ]
    engine = check(subject, tasks)
    assert engine.counters.passes == len(tasks)
