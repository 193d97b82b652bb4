"""What a job will run, save and need, known before it is queued and without loading the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ndif_batch import blobs
from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, ReducedSpec, archive_size, distinct_dims
from ndif_batch.client.reductions import partials_fit, reduced_specs
from ndif_batch.client.resolved import Prompts, check_parameters, count_prompts, resolve_space
from ndif_batch.client.saved import SavedRef, abstract, taken
from ndif_batch.client.shapes import Saved, shapes
from ndif_batch.errors import ShapeError, SweepError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.validate import check_constants, validate
from ndif_batch.graph.validate import constants as named_constants
from ndif_batch.models.info import ModelInfo
from ndif_batch.sweep.reduction import Reduction
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.tiles import tile_shape, tile_tasks

Tasks: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked submission.

    ``arrays`` hold a value of each task, ``reduced`` a statistic of those that are not kept; ``reductions`` is how that
    was asked for. ``shards`` are the task ids of each shard; so many tasks are ``excluded`` and do not run. ``bytes``
    are those of all that is kept, uncompressed; ``files`` those of the archive; ``cost`` the most FLOPs of the graph's
    own operations in one task (the model's come on top). ``constants`` are the tensors to be stored at submission, by
    digest; ``stored`` those that are already; ``saved`` those that other jobs save.
    """

    graph: Graph
    space: Space
    model: ModelInfo
    arrays: tuple[ArraySpec, ...]
    reduced: tuple[ReducedSpec, ...]
    tile: tuple[int, ...]
    shards: tuple[range, ...]
    excluded: int
    prompts: Prompts
    bytes: int
    files: int
    cost: int
    constants: Mapping[str, Any]
    stored: frozenset[str]
    reductions: Mapping[str, Reduction] = field(default_factory=dict)
    saved: Mapping[str, SavedRef] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """Number of tasks, those included that do not run."""
        return self.space.size

    def arrays_to_json(self) -> list[dict[str, Any]]:
        """All arrays as the job has them."""
        return [*(array.to_json() for array in self.arrays), *(one.to_json() for one in self.reduced)]

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last task that run."""
        return (int(self.running[0]), int(self.running[-1])) if self.excluded else (0, self.tasks - 1)

    @property
    def running(self) -> Tasks:
        """The ids of the tasks that run, in order."""
        return running(self.space)


def running(space: Space) -> Tasks:
    """The ids of the tasks of a space that run, in order."""
    skipped = space.excluded()
    return np.arange(space.size) if skipped is None else np.flatnonzero(~skipped)


def prepare(
    graph: Graph,
    space: Space,
    model: ModelInfo,
    constants: Mapping[str, Any],
    blobs_directory: Path,
    reductions: Mapping[str, Reduction] | None = None,
) -> Plan:
    """Checks a graph, what its parameters are bound to, and the shapes of every task that runs.

    A constant tensor is among ``constants`` or stored already. Raises ``GraphError``, ``SweepError``, ``ModelError``
    or ``ShapeError``, and ``NotFoundError`` for a missing constant; an error of one task names its bindings.
    """
    validate(graph)
    space, saved = taken(space)
    check_parameters(graph, space)
    skipped = space.excluded()
    if skipped is not None and skipped.all():
        raise SweepError("no point of the space is left to run")
    resolved = resolve_space(graph, space, model)
    given, stored = _constants(graph, space, constants, blobs_directory, saved)
    tensors = given | stored | abstract(saved.values())
    check_constants(graph, {digest: tensor.bytes for digest, tensor in tensors.items()})
    found = shapes(graph, space, resolved, model, tensors)
    axes = tuple(AxisSpec(axis.name, axis.columns) for axis in space.axes)
    saves = distinct_dims(axes, [_array(graph, name, saved) for name, saved in found.saves.items()])
    reduced = reduced_specs(reductions or {}, saves, space)
    arrays = tuple(array for array in saves if array.name not in {one.source.name for one in reduced})
    files = 1 + len(reduced) + sum(1 + len(array.lengths) for array in arrays)
    per_task = sum(array.bytes_per_task for array in arrays)
    tile = tile_shape(space.shape, per_task, files, lambda tile: partials_fit(reduced, space, tile))
    size = archive_size(ArchiveSpec(axes, tile, arrays, reduced=reduced))
    return Plan(
        graph=graph,
        space=space,
        model=model,
        arrays=arrays,
        reduced=reduced,
        tile=tile,
        shards=tuple(tile_tasks(space.shape, tile)),
        excluded=0 if skipped is None else int(skipped.sum()),
        prompts=count_prompts(graph, resolved, model),
        bytes=size.bytes,
        files=size.files,
        cost=found.cost,
        constants={digest: constants[digest] for digest in given},
        stored=frozenset(stored),
        reductions=reductions or {},
        saved=saved,
    )


def _constants(
    graph: Graph, space: Space, given: Mapping[str, Any], directory: Path, saved: Collection[str]
) -> tuple[dict[str, AbstractTensor], dict[str, AbstractTensor]]:
    """Shape and dtype of each constant tensor that is needed: of those given, and of those stored before."""
    needed = (named_constants(graph) | space.tensors()).difference(saved)
    described = {
        digest: AbstractTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for digest, tensor in given.items()
        if digest in needed
    }
    return described, {digest: AbstractTensor(*blobs.describe(directory, digest)) for digest in needed - set(described)}


def _array(graph: Graph, name: str, saved: Saved) -> ArraySpec:
    node = graph.saves()[name]
    dims = graph.nodes[node].dims
    if dims is not None and len(dims) != len(saved.shape):
        raise ShapeError(
            f"node {node} (save): {name!r} has the shape {list(saved.shape)}, which {len(dims)} names do not fit",
            hint=f"dims names {', '.join(dims)}",
        )
    return ArraySpec.saved(name, saved.dtype, saved.shape, dims, saved.ragged)
