"""What a layout costs: files and bytes, writing, opening, one task, all tasks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from storing.layouts import Archive, Layout, SafetensorsFiles, ZarrGroups, saved
from storing.timing import milliseconds, seconds

READS = 30


def compare(folder: Path, tasks: int, group_tasks: int) -> dict[str, Any]:
    """The three layouts with a number and a vector a task; of groups ``group_tasks`` are enough."""
    return {
        "archive": measure(Archive(folder / "archive.zarr", tasks), folder / "archive.zarr", tasks),
        "safetensors": measure(SafetensorsFiles(folder / "files"), folder / "files", tasks),
        "zarr_groups": measure(ZarrGroups(folder / "groups"), folder / "groups", group_tasks),
    }


def million(folder: Path, tasks: int) -> dict[str, Any]:
    """An archive of one number a task."""
    path = folder / "million.zarr"
    return measure(Archive(path, tasks, vectors=False), path, tasks)


def measure(layout: Layout, path: Path, tasks: int) -> dict[str, Any]:
    """Every figure of one layout; ``AssertionError`` if it does not give back what was saved."""
    numbers, vectors = saved(tasks)
    (writing,) = seconds(lambda: layout.write(numbers, vectors), 1)
    files = [file for file in path.rglob("*") if file.is_file()]
    opening = milliseconds(layout.open, READS)
    source = random.Random(0)
    chosen = [source.randrange(tasks) for _ in range(5)]
    assert np.allclose([layout.one(task) for task in chosen], numbers[chosen])
    assert np.array_equal(np.ravel(layout.all()), numbers)
    return {
        "tasks": tasks,
        "files": len(files),
        "bytes": sum(512 * file.stat().st_blocks for file in files),
        "write_seconds": writing,
        "open": opening,
        "one_task": milliseconds(lambda: layout.one(source.randrange(tasks)), READS),
        "all_tasks_seconds": seconds(layout.all, 1)[0],
    }
