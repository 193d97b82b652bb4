"""Every site of every family: what a run reads there and what its writes change, among neighbours that do the same."""

from typing import Any

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg
from ndif_batch.graph.sites import Site, SiteTensor
from ndif_batch.sweep.task import Task
from tests.families import FAMILIES, Subject, family
from tests.oracle import assert_equal, oracle

OTHERS = ("mixtral", "gpt_oss", "gemma2", "bert", "gptj", "bloom", "mamba")
"""Experts; attention sinks; soft caps and attention weights; no causality; families in rows, two with tuples."""

PROMPTS = ((5, 9, 2, 7), (8, 3, 3), (5, 9, 2, 7, 1, 1))


def tensors(site: Site) -> list[tuple[tuple[int, ...], SiteTensor]]:
    """The tensors of a site, each with the items that lead to it."""
    found: list[tuple[tuple[int, ...], SiteTensor]] = []

    def look(value: Any, path: tuple[int, ...]) -> None:
        if isinstance(value, SiteTensor):
            found.append((path, value))
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                look(item, (*path, i))

    look(site.value, ())
    return found


def reading(site: Site, path: tuple[int, ...], prompt: tuple[int, ...]) -> Task:
    nodes = [Node("read", run=0, site=site.path)]
    for item in path:
        nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (item,))))
    return Task(Graph({}, (Run("r", prompt),), (*nodes, Node("save", (NodeRef(len(nodes) - 1),), name="x"))))


def writing(site: Site, path: tuple[int, ...], shape: SiteTensor, head: str, prompt: tuple[int, ...]) -> Task:
    along: list[Arg] = [SliceArg()] * shape.token_axes[0] + [1]
    nodes = (
        Node("write", (0.5,), run=0, site=site.path, index=(*path, *along)),
        Node("read", run=0, site=f"{head}.output"),
        Node("save", (NodeRef(1),), name="x"),
    )
    return Task(Graph({}, (Run("r", prompt),), nodes))


def tasks_of(subject: Subject) -> list[Task]:
    sites = subject.loaded.sites
    assert sites.head is not None
    tasks = []
    for site in sites.sites.values():
        for path, shape in tensors(site) if site.refused is None else ():
            tasks += [reading(site, path, prompt) for prompt in PROMPTS]
            if "float" in shape.dtype and len(shape.token_axes) == 1:
                tasks += [writing(site, path, shape, sites.head, prompt) for prompt in PROMPTS]
    return tasks


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_every_site_can_be_read_and_written_among_neighbours(name: str) -> None:
    subject = family(name)
    tasks = tasks_of(subject)
    assert len(tasks) > 200
    for outcome in Engine(subject.loaded).run(tasks):
        task = tasks[outcome.index]
        assert outcome.error is None, (task.graph.nodes[0].site, outcome.error)
        for save, value in oracle(subject, task).items():
            assert_equal(f"{task.graph.nodes[0]} {save}", outcome.saves[save], value)
