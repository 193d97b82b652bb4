"""This project's engine alone, in one process: tasks in, values out; no queue, no archive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from contenders.engine_model import LIBRARIES, load, run
from contenders.patching.experiment import SAVED, constants, record
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import read
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task


def patch(given: Sweep, graph: Graph, engine: Engine, layers: Sequence[int]) -> list[float]:
    axes = (Axis("layer", {"layer": layers}), Axis("position", {"position": given.positions}))
    space = Space(axes, constants(given))
    bound = space.all_bindings(range(space.size))
    tasks = [Task(graph, bindings, id=number) for number, bindings in enumerate(bound)]
    values: list[float] = run(engine, tasks, SAVED).tolist()
    return values


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    graph = record(problem.subject, lm).graph
    patch_all(problem, partial(patch, sweep(problem), graph, engine), LIBRARIES)
