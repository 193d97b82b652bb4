"""One archive with every kind of array, and what its tasks save: shared by the tests and by their child processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, TaskStatus, write_shard

PROMPTS = ["The capital of", "Größe", ""]
LONGEST, WIDTH = 4, 3
FAILED = 4


def example_spec(**attributes: Any) -> ArchiveSpec:
    """Five layers by three tied prompts; tiles of two layers, so that the last tile is shorter."""
    axes = (
        AxisSpec("layer", {"layer": range(5)}),
        AxisSpec("pair", {"clean": PROMPTS, "ids": [(1, 2), (3,), (4, 5)]}),
    )
    arrays = (
        ArraySpec.saved("loss", "float32"),
        ArraySpec.saved("resid", "bfloat16", (LONGEST, WIDTH), ("token", "hidden"), ragged=(0,)),
        ArraySpec.saved("top", "int64", (2,), ("rank",)),
        ArraySpec.saved("right", "bool"),
    )
    return ArchiveSpec(axes, (2, 3), arrays, attributes)


def saved_by(task: int) -> dict[str, np.ndarray[Any, Any]]:
    """What a task saves; ``resid`` has as many tokens as its prompt has ids."""
    tokens = 1 + task % LONGEST
    return {
        "loss": np.array(task / 4, np.float32),
        "resid": np.full((tokens, WIDTH), task, np.float32),
        "top": np.array([task, -task]),
        "right": np.array(task % 2 == 0),
    }


def write_tile(path: Path, spec: ArchiveSpec, index: tuple[int, ...], failed: int | None = None) -> None:
    """Write what the tasks of one tile save."""
    tasks = spec.grid.tasks(index)
    saves = [None if task == failed else saved_by(task) for task in tasks]
    values = {array.name: [None if save is None else save[array.name] for save in saves] for array in spec.arrays}
    status = [TaskStatus.SAVED if save else TaskStatus.FAILED for save in saves]
    write_shard(path, spec, tasks.start, values, status)


def write_all(path: Path, spec: ArchiveSpec, failed: int | None = FAILED) -> None:
    """Write every tile."""
    for index in spec.grid.indices():
        write_tile(path, spec, index, failed)
