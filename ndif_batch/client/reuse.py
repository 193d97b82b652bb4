"""Which tasks need not run again: what makes two jobs the same experiment, and how many tasks they share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ndif_batch.archive import ArchiveSpec
from ndif_batch.client.plan import Plan, Tasks
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.serialize import digest
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.tokenizer import FILE as TOKENIZER
from ndif_batch.queue.records import JobRecord, JobState
from ndif_batch.sweep.matching import NONE, Matching, draws
from ndif_batch.sweep.space import Space

ENGINE = ("ndif-batch", "torch", "transformers")
"""The packages whose versions are the engine's: another one may compute other numbers."""


CONFIG = "config.json"
"""What Hugging Face calls the file that says how the weights make a model."""


@dataclass(frozen=True, slots=True)
class Reusable:
    """How many tasks of a plan earlier jobs have saved, and which jobs, newest first; ``left`` are those that run."""

    tasks: int = 0
    jobs: tuple[int, ...] = ()
    left: Tasks = field(default_factory=lambda: np.arange(0), compare=False)

    @classmethod
    def nothing(cls, plan: Plan) -> Reusable:
        """All of the plan runs."""
        return cls(0, (), plan.running)


def identity(graph: Graph, model: ModelInfo, options: Mapping[str, Any], seed: int) -> str:
    """The digest (BLAKE2b-256) of all that decides what a task saves beside what it binds.

    That is the graph, the model's weights, dtype, configuration and tokenizer, the engine, the job's ``options``, and
    the ``seed`` if the graph draws random numbers. Tensors that it names are named by their content already.
    """
    parts = {
        "graph": digest(graph),
        "model": [model.digest, model.revision, model.dtype],
        "files": [_content(model.weights / CONFIG), _content(model.directory / TOKENIZER)],
        "engine": [f"{package} {version(package)}" for package in ENGINE],
        "options": dict(options),
        "seed": seed if draws(graph) else None,
    }
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=32).hexdigest()


def reusable(plan: Plan, earlier: Sequence[JobRecord]) -> Reusable:
    """What of a plan the ``earlier`` jobs, all of its identity, hold at this moment."""
    wanted = left = plan.running
    found = []
    wanted_saves = set(plan.graph.saves())
    for job in earlier:
        if not len(left):
            break
        if not wanted_saves <= {array["name"] for array in job.arrays if "reduce" not in array}:
            continue
        old = Matching(plan.graph, plan.space, Space.from_json(job.space)).old_tasks(left)
        has = (old != NONE) & _saved(job)[old]
        if has.any():
            found.append(job.id)
            left = left[~has]
    return Reusable(len(wanted) - len(left), tuple(found), left)


def _saved(job: JobRecord) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which tasks of a job are saved, as its archive says; a completed job is taken at its word."""
    from ndif_batch.archive import SavedTasks

    space = Space.from_json(job.space)
    if job.state is JobState.COMPLETED:
        skipped = space.excluded()
        return np.full(job.tasks, job.store.is_dir()) if skipped is None else ~skipped & job.store.is_dir()
    axes = {axis.name: axis.columns for axis in space.axes}
    return SavedTasks(job.store, ArchiveSpec.described(axes, job.tile, job.arrays)).saved()


def _content(file: Path) -> str | None:
    """The digest of a file; None if there is none."""
    try:
        changed = file.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _file_digest(str(file), changed)


@cache
def _file_digest(file: str, changed: int) -> str:
    """Of a file as it was at the time ``changed``."""
    with open(file, "rb") as data:
        return blake2b(data.read(), digest_size=32).hexdigest()
