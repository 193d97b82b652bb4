"""The measured model in this project's engine, with what its users write traces with."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from contenders.models import load_model
from contenders.protocol import Problem
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import wrap
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel

LIBRARIES = ("torch", "transformers")


def load(problem: Problem) -> tuple[Engine, LanguageModel]:
    """An engine, and the model to record traces of."""
    loaded = _loaded(problem)
    engine = Engine(loaded) if problem.batch_tokens is None else Engine(loaded, max_batch_tokens=problem.batch_tokens)
    subject, nowhere = problem.subject, Path()
    info = ModelInfo(subject.shape, "", nowhere, nowhere, "", "", subject.dtype, loaded.sites)
    return engine, LanguageModel(info)


def _loaded(problem: Problem) -> LoadedModel:
    """The model; a process that only shares it does what the first one says until that has ended."""
    if problem.subject.processes == 1:
        loaded = wrap(load_model(problem.subject))
        gc.freeze()  # as the engine does with a model that it loads
        return loaded
    from contenders import placed
    from ndif_batch.engine.following import dismiss, follow, lead

    loaded = wrap(load_model(problem.subject), ranks=placed.ranks())
    if placed.ranks().rank:
        follow(loaded)
        sys.exit()
    lead(loaded)
    atexit.register(dismiss, loaded)
    return loaded


def run(engine: Engine, tasks: Iterable[Task], name: str) -> torch.Tensor:
    """What every task saved under ``name``, stacked in the order of the tasks."""
    given = list(tasks)
    saved: list[Any] = [None] * len(given)
    for outcome in engine.run(given):
        if outcome.error is not None:
            raise outcome.error
        saved[outcome.index] = outcome.saves[name]
    return torch.stack(saved).float()
