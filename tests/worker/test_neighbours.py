"""Who submits the worst that is allowed does not fail, change or hold up what others have submitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ndif_batch.client import Client, JobHandle
from ndif_batch.config import Settings
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.queue.records import EventKind, JobState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.worker.process import run
from tests import tiny
from tests.worker.working import cut

HIDDEN = Node("read", run=0, site="model.layers.{layer}.output")
TASKS = 2 * 3 * 4
CHAIN = 2000
"""Nodes; 10,000 are allowed."""


def save(node: int, name: str = "out") -> Node:
    return Node("save", (NodeRef(node),), name=name)


def graph(*nodes: Node) -> Graph:
    params = {"prompt": ParamType.PROMPT, "layer": ParamType.INT, "position": ParamType.INT, "answer": ParamType.INT}
    row = Node("getitem", (NodeRef(0), (0, ParamRef("position"))))
    used = Node("mul", (NodeRef(1), ParamRef("answer")))
    return Graph(params, (Run("only", ParamRef("prompt")),), (HIDDEN, row, used, *nodes))


def worst() -> dict[str, Graph]:
    """Wild values, very many nodes, products of everything with everything, and saves that are as large."""
    flat = Node("reshape", (NodeRef(0), (48,)))
    product = Node("einsum", ("a,b,c,d->abcd", (NodeRef(3),) * 4))
    cube = Node("einsum", ("a,b,c->abc", (NodeRef(3),) * 3))
    wild = (Node("truediv", (NodeRef(2), 0.0)), Node("log", (NodeRef(3),)), save(4))
    chain = tuple(Node("add", (NodeRef(2 + k), 1.0)) for k in range(CHAIN))
    return {
        "wild": graph(*wild),
        "deep": graph(*chain, save(2 + CHAIN)),
        "exploding": graph(flat, product, Node("sum", (NodeRef(4),)), save(5)),
        "huge": graph(flat, cube, save(4)),
    }


def submit(client: Client, own: Graph, **options: Any) -> JobHandle:
    """A job of small shards."""
    axes = {"layer": range(2), "position": range(3), "answer": range(1, 5)}
    space = Space(tuple(Axis(name, {name: values}) for name, values in axes.items()), {"prompt": "the cat sat"})
    plan = cut(client.prepare(own, space, tiny.NAME), (1, 1, 2))
    return client.submit(plan, reuse=False, **options)


@pytest.fixture
def ready(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Settings:
    """Settings of a queue that knows a model with weights; a pass takes two tasks' tokens."""
    client.add_model(str(tiny.write(tmp_path_factory.mktemp("source"))), tiny.NAME)
    return client.settings.model_copy(update={"max_batch_tokens": 6})


def test_the_worst_that_is_allowed_neither_fails_nor_changes_nor_holds_up_what_others_submit(ready: Settings) -> None:
    mallory, bob, carol = (Client(ready.model_copy(update={"user": name})) for name in ("mallory", "bob", "carol"))
    with mallory, bob, carol:
        alone = submit(carol, graph(save(2)))
        run(ready, tiny.NAME, until_idle=True)
        bad = [submit(mallory, own) for own in worst().values()]
        bad.append(submit(mallory, worst()["wild"], nan="error"))
        together = submit(bob, graph(save(2)))
        run(ready, tiny.NAME, until_idle=True)
        states = [job.refresh().state for job in bad]
        assert states == [JobState.COMPLETED] * 4 + [JobState.FAILED]
        assert together.refresh().state is JobState.COMPLETED
        found, expected = (np.asarray(job.results()["out"]) for job in (together, alone))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        ends = [one.job_id for one in bob.queue.events(limit=10_000) if one.kind is EventKind.SHARD_DONE]
        last = len(ends) - 1 - ends[::-1].index(together.id)
        before = sum(job_id in {job.id for job in bad} for job_id in ends[:last])
        assert before <= TASKS / 2 * len(bad) / 2, "most of what was there first waits until the other is done"
