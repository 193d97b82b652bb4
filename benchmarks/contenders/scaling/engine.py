"""This project's engine: one graph, a task an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from contenders.engine_model import LIBRARIES, load, run
from contenders.models import blocks
from contenders.protocol import Subject, read
from contenders.scaling.ablation import TOKEN, Ablation, compute_all
from ndif_batch import param
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel

SAVED = "logit"


def record(subject: Subject, lm: LanguageModel) -> Graph:
    t = lm.trace()
    with t, t.invoke(param("prompt")):
        blocks(subject, lm)[param("layer")].output[:, param("position")] = 0.0
        lm.lm_head.output[0, -1, TOKEN].save(SAVED)
    return t.graph


def compute(graph: Graph, engine: Engine, given: Sequence[Ablation]) -> torch.Tensor:
    tasks = [
        Task(graph, {"prompt": one.prompt, "layer": one.layer, "position": one.position}, id=number)
        for number, one in enumerate(given)
    ]
    return run(engine, tasks, SAVED)


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    compute_all(problem, partial(compute, record(problem.subject, lm), engine), LIBRARIES)
