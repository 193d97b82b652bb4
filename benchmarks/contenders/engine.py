"""This project's engine alone, in one process: tasks in, values out; no queue, no archive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from contenders.experiment import SAVED, constants, record
from contenders.protocol import Problem, Values, compete, read
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import load
from ndif_batch.graph.nodes import Graph
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel


def patch(problem: Problem, graph: Graph, engine: Engine, layers: Sequence[int]) -> Values:
    axes = (Axis("layer", {"layer": layers}), Axis("position", {"position": problem.positions}))
    space = Space(axes, constants(problem))
    tasks = [Task(graph, space.bindings(number), id=number) for number in range(space.size)]
    values = torch.empty(space.size)
    for outcome in engine.run(tasks):
        if outcome.error is not None:
            raise outcome.error
        values[outcome.index] = outcome.saves[SAVED]
    table: Values = values.reshape(space.shape).tolist()
    return table


if __name__ == "__main__":
    problem = read()
    torch.set_num_threads(problem.threads)
    info = ModelInfo.read(Path(problem.entry))
    engine = Engine(load(info, problem.device))
    compete(problem, partial(patch, problem, record(LanguageModel(info)).graph, engine), ["torch", "transformers"])
