"""This project's engine: one graph, a task a prompt."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from contenders.engine_model import LIBRARIES, load, run
from contenders.generation.task import Generating, Prompts, generate_all, generating
from contenders.models import blocks
from contenders.protocol import Subject, read
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel, param

STATES, TOKENS = "states", "tokens"


def saving(subject: Subject, lm: LanguageModel, work: Generating) -> Graph:
    t = lm.generate(max_new_tokens=work.steps)
    with t, t.invoke(param("prompt")):
        block = blocks(subject, lm)[work.layer]
        first = block.output[0, -1:]
        with t.iter[1:]:
            joined: Any = torch.cat((first, block.output[0]))
            joined.save(STATES)
    return t.graph


def plain(lm: LanguageModel, work: Generating) -> Graph:
    t = lm.generate(max_new_tokens=work.steps)
    with t, t.invoke(param("prompt")):
        t.tokens.save(TOKENS)
    return t.graph


def carried_out(graph: Graph, name: str, engine: Engine, prompts: Prompts) -> torch.Tensor:
    return run(engine, [Task(graph, {"prompt": tuple(p)}, id=number) for number, p in enumerate(prompts)], name)


if __name__ == "__main__":
    problem = read()
    engine, lm = load(problem)
    work = generating(problem)
    save = partial(carried_out, saving(problem.subject, lm, work), STATES, engine)
    generate_all(problem, LIBRARIES, save, partial(carried_out, plain(lm, work), TOKENS, engine))
