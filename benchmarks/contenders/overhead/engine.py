"""This project's engine, as one graph with 256 bindings or as a graph for each task (``alike``)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from contenders.engine_model import LIBRARIES, load, run
from contenders.models import blocks
from contenders.overhead.chain import Chains, chain, chains, compute_all
from contenders.protocol import Subject, read
from ndif_batch import param
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel

SAVED = "value"


def record(subject: Subject, lm: LanguageModel, nodes: int) -> Graph:
    t = lm.trace()
    with t, t.invoke(param("prompt")):
        scale = param("scale") if nodes else None
        chain(blocks(subject, lm)[-1].output[0, -1], scale, nodes).save(SAVED)
    return t.graph


def compute(given: Chains, engine: Engine, graphs: dict[int, Graph], nodes: int, *, alike: bool) -> torch.Tensor:
    """The graphs are new objects at each call, as those of a new job are."""
    graph = replace(graphs[nodes])
    columns: dict[str, Any] = {"prompt": [tuple(prompt) for prompt in given.prompts], "scale": given.scales}
    space = Space((Axis("task", {name: columns[name] for name in graph.params}),))
    tasks = [
        Task(graph if alike else replace(graph), space.bindings(number), id=number) for number in range(space.size)
    ]
    return run(engine, tasks, SAVED)


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    given = chains(problem)
    graphs = {nodes: record(problem.subject, lm, nodes) for nodes in given.nodes}
    compute_all(problem, partial(compute, given, engine, graphs, **problem.arguments), LIBRARIES)
