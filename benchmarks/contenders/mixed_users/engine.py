"""This project's engine: a graph a request, all of them in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from contenders.engine_model import LIBRARIES, load, run
from contenders.mixed_users.requests import Request, answer_all
from contenders.models import blocks, neurons
from contenders.protocol import Subject, read
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel

SAVED = "residual"


def record(subject: Subject, lm: LanguageModel, request: Request) -> Graph:
    modules = blocks(subject, lm)
    t = lm.trace()
    with t, t.invoke(tuple(request.prompt)):
        neurons(subject, modules[request.write]).input[:, :, request.first : request.stop] = request.value
        modules[request.read].output[0, -1].save(SAVED)
    return t.graph


def answer(subject: Subject, engine: Engine, lm: LanguageModel, requests: Sequence[Request]) -> torch.Tensor:
    """Recording is a user's work, as tracing is nnsight's: it is measured with the rest."""
    graphs = [record(subject, lm, request) for request in requests]
    return run(engine, [Task(graph, id=number) for number, graph in enumerate(graphs)], SAVED)


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    answer_all(problem, partial(answer, problem.subject, engine, lm), LIBRARIES)
