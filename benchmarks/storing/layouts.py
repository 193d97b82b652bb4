"""Ways to lay out the results of many tasks: ours, a safetensors file a task, a Zarr group a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from safetensors.numpy import load_file, save_file

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, TaskStatus, create, finish, write_shard
from ndif_batch.sweep.tiles import tile_shape

WIDTH = 64

Vector = np.ndarray[Any, np.dtype[np.float32]]


def saved(tasks: int) -> tuple[Vector, Vector]:
    """A number [tasks] and a vector [tasks, width] of each task."""
    source = np.random.default_rng(0)
    return source.standard_normal(tasks, np.float32), source.standard_normal((tasks, WIDTH), np.float32)


class Layout(Protocol):
    """Writes the results of all tasks, opens them, then reads them."""

    def write(self, numbers: Vector, vectors: Vector) -> None: ...

    def open(self) -> None:
        """What a reader does before he reads."""

    def one(self, task: int) -> float:
        """The number of one task."""

    def all(self) -> Vector:
        """The numbers of all tasks."""


@dataclass
class Archive:
    """One archive, durable: every shard is synced."""

    path: Path
    tasks: int
    vectors: bool = True
    _results: Results | None = None

    def write(self, numbers: Vector, vectors: Vector) -> None:
        arrays = [ArraySpec.saved("number", "float32")]
        if self.vectors:
            arrays.append(ArraySpec.saved("vector", "float32", (WIDTH,)))
        shape = _square(self.tasks)
        axes = (AxisSpec("layer", {"layer": range(shape[0])}), AxisSpec("position", {"position": range(shape[1])}))
        bytes_per_task = sum(array.bytes_per_task for array in arrays)
        spec = ArchiveSpec(axes, tile_shape(shape, bytes_per_task, 1 + len(arrays)), tuple(arrays))
        create(self.path, spec)
        for index in spec.grid.indices():
            tasks = spec.grid.tasks(index)
            part = slice(tasks.start, tasks.stop)
            values: Mapping[str, Any] = {"number": list(map(np.asarray, numbers[part])), "vector": list(vectors[part])}
            write_shard(self.path, spec, tasks.start, values, [TaskStatus.SAVED] * len(tasks))
        finish(self.path, {})

    def open(self) -> None:
        self._results = Results(self.path)
        self._results.xarray()

    def one(self, task: int) -> float:
        layer, position = divmod(task, _square(self.tasks)[1])
        assert self._results is not None
        return float(self._results.torch("number", layer=layer, position=position))

    def all(self) -> Vector:
        return np.asarray(Results(self.path)["number"][...])


@dataclass
class SafetensorsFiles:
    """A file a task, in one folder, not synced."""

    path: Path

    def write(self, numbers: Vector, vectors: Vector) -> None:
        self.path.mkdir()
        for task, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
            save_file({"number": np.asarray(number), "vector": vector}, self._file(task))

    def open(self) -> None:
        """Nothing: a file is opened when it is read."""

    def one(self, task: int) -> float:
        return float(load_file(self._file(task))["number"])

    def all(self) -> Vector:
        return np.array([load_file(file)["number"] for file in sorted(self.path.iterdir())])

    def _file(self, task: int) -> Path:
        return self.path / f"{task:07}.safetensors"


@dataclass
class ZarrGroups:
    """A group a task beneath one group, an array a save, not synced."""

    path: Path
    _root: zarr.Group | None = None

    def write(self, numbers: Vector, vectors: Vector) -> None:
        root = zarr.create_group(self.path)
        for task, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
            group = root.create_group(f"{task:07}")
            group.create_array("number", data=np.asarray(number))
            group.create_array("vector", data=vector)

    def open(self) -> None:
        self._root = zarr.open_group(self.path, mode="r")

    def one(self, task: int) -> float:
        assert self._root is not None
        return self._number(self._root, task)

    def all(self) -> Vector:
        root = zarr.open_group(self.path, mode="r")
        return np.array([self._number(root, task) for task in range(sum(1 for _ in root.group_keys()))])

    def _number(self, root: zarr.Group, task: int) -> float:
        number: Any = root[f"{task:07}/number"]
        return float(number[...])


def _square(tasks: int) -> tuple[int, int]:
    """Axes of so many tasks, near a square."""
    first = next(length for length in range(int(tasks**0.5), 0, -1) if tasks % length == 0)
    return first, tasks // first
