"""This project's engine: one graph, a task a prompt."""

from __future__ import annotations

from functools import partial

import torch

from contenders.engine_model import LIBRARIES, load, run
from contenders.extraction.reading import Prompts, extract_all, reading
from contenders.models import blocks
from contenders.protocol import Subject, read
from ndif_batch import param
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel

SAVED = "residual"


def record(subject: Subject, lm: LanguageModel) -> Graph:
    t = lm.trace()
    with t, t.invoke(param("prompt")):
        blocks(subject, lm)[param("layer")].output[0, -1].save(SAVED)
    return t.graph


def extract(graph: Graph, engine: Engine, layer: int, prompts: Prompts) -> torch.Tensor:
    tasks = [Task(graph, {"prompt": tuple(p), "layer": layer}, id=number) for number, p in enumerate(prompts)]
    return run(engine, tasks, SAVED)


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    graph = record(problem.subject, lm)
    extract_all(problem, partial(extract, graph, engine, reading(problem).layer), LIBRARIES)
