"""What every task of a job saves, found before anything is queued: shapes, dtypes, and which lengths vary."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ndif_batch.engine.program import compile_task, optimise
from ndif_batch.errors import NdifBatchError, ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.bind import site_params
from ndif_batch.graph.infer import infer, infer_stopped, total_cost
from ndif_batch.graph.nodes import Graph, ParamRef, ParamType, Value, leaves
from ndif_batch.graph.sites import SiteMap
from ndif_batch.graph.steps import generations
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.tokenizer import concrete
from ndif_batch.sweep.space import Axis, Excluded, Space
from ndif_batch.sweep.task import make_task

CHECKED_TASKS = 4_096
SHOWN_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Saved:
    """What the tasks of a job save under one name: the longest shape, the axes whose length varies, torch's dtype."""

    shape: tuple[int, ...]
    ragged: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Shapes:
    """Every saved value of a job, and the most FLOPs that the graph's own operations cost in one task."""

    saves: Mapping[str, Saved]
    cost: int


def shapes(
    graph: Graph, space: Space, resolved: Space, model: ModelInfo, constants: Mapping[str, AbstractTensor]
) -> Shapes:
    """Shapes over all tasks; an error of one task names what that task binds (in the words of ``space``).

    ``GraphError`` if this version cannot run an operation, or if what a task writes depends on itself.

    Tasks that cannot differ in shape are inferred once: prompts of equal length, layers with equal sites. Should more
    than ``CHECKED_TASKS`` remain, the least and greatest number on each axis stand for those between them.
    """
    found: dict[str, Saved] = {}
    cost = 0
    optimised, origin = optimise(graph)
    for task in checked_tasks(graph, resolved, model.sites):
        try:
            bindings = make_task(graph, resolved, 0, task).bindings
            bound = concrete(graph, bindings, model.tokenizer, model.sites)
            values = infer(bound, model.sites, constants)
            compile_task(concrete(optimised, bindings, model.tokenizer, model.sites), origin, model.sites)
            found = _merge(found, graph, values)
            for steps in _early_stops(graph):
                found = _merge(found, graph, infer_stopped(bound, model.sites, constants, steps=steps))
        except NdifBatchError as error:
            error.message = f"{error.message} ({_describe(space, task)})"
            raise
        cost = max(cost, total_cost(bound, values))
    return Shapes(found, cost)


def _early_stops(graph: Graph) -> set[int]:
    """After how many steps runs may have stopped: enough of these to show which lengths that changes."""
    counts = [own.count for own in generations(graph).values() if own.stop]
    return {steps for count in counts for steps in (1, count - 2, count - 1) if steps > 0}


def checked_tasks(graph: Graph, space: Space, sites: SiteMap) -> list[int]:
    """Ids of the tasks that stand for all tasks of a resolved ``space`` that run, in order."""
    classes = _Classes(graph, sites)
    skipped = space.excluded()
    if skipped is not None:
        return _checked_of(space, classes, ~skipped)
    chosen = [_distinct(axis, classes) for axis in space.axes]
    if prod(map(len, chosen)) > CHECKED_TASKS:
        chosen = [_corners(axis, classes) for axis in space.axes]
    strides = [prod(space.shape[i + 1 :]) for i in range(len(space.axes))]
    return [sum(at * stride for at, stride in zip(point, strides, strict=True)) for point in product(*chosen)]


def _checked_of(space: Space, classes: _Classes, runs: Excluded) -> list[int]:
    """As :func:`checked_tasks`, of some tasks of a space.

    Should they be too many, they are for each place of an axis that matters the first and the last task there.
    """
    tasks = np.flatnonzero(runs)
    points = np.unravel_index(tasks, space.shape) if space.axes else ()
    kinds = [_labels(axis, classes)[along] for axis, along in zip(space.axes, points, strict=True)]
    distinct = np.unique(np.stack(kinds), axis=1, return_index=True)[1] if kinds else np.array([0])
    if len(distinct) <= CHECKED_TASKS:
        return sorted(tasks[distinct].tolist())
    ends = set()
    for axis, along in zip(space.axes, points, strict=True):
        for place in _corners(axis, classes):
            there = tasks[along == place]
            ends |= {int(there[0]), int(there[-1])} if len(there) else set()
    return sorted(ends)


def _labels(axis: Axis, classes: _Classes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each place of an axis: equal where shapes cannot differ."""
    labels = np.empty(len(axis), dtype=np.int64)
    for number, group in enumerate(_groups(axis, classes, tuple(axis.columns)).values()):
        labels[group] = number
    return labels


class _Classes:
    """Sorts the values of a parameter: those with equal keys cannot lead to different shapes."""

    def __init__(self, graph: Graph, sites: SiteMap) -> None:
        templates = sorted({node.site for node in graph.nodes if node.site is not None})
        self._sites = sites
        self._templates = {name: [site for site in templates if name in site_params(site)] for name in graph.params}
        self._arguments = {
            leaf.param
            for node in graph.nodes
            for arg in node.arguments()
            for leaf in leaves(arg)
            if isinstance(leaf, ParamRef)
        }
        self.numbers = {name for name in self._arguments if graph.params[name] in (ParamType.INT, ParamType.FLOAT)}

    def key(self, name: str, value: Value) -> Hashable:
        if name in self._arguments:
            return value
        if isinstance(value, tuple):
            return len(value)
        templates = self._templates.get(name, ())
        if any(len(set(site_params(site))) > 1 for site in templates):
            return value
        return tuple(_site_class(self._sites, site.format_map({name: value})) for site in templates)


def _site_class(sites: SiteMap, path: str) -> Hashable:
    """What shape inference can see of a site, a module or a weight; the path itself if the model has none such."""
    seen = [sites.sites.get(name) for name in (path, f"{path}.input", f"{path}.output")]
    known = [(site.value, site.refused) for site in seen if site is not None]
    return (*known, sites.weights.get(path)) if known or path in sites.weights else path


def _distinct(axis: Axis, classes: _Classes) -> list[int]:
    return [group[0] for group in _groups(axis, classes, tuple(axis.columns)).values()]


def _corners(axis: Axis, classes: _Classes) -> list[int]:
    numbers = [name for name in axis.columns if name in classes.numbers]
    groups = _groups(axis, classes, tuple(name for name in axis.columns if name not in numbers))
    return sorted({along for group in groups.values() for along in _extremes(axis, numbers, group)})


def _groups(axis: Axis, classes: _Classes, names: tuple[str, ...]) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for along in range(len(axis)):
        key = tuple(classes.key(name, axis.columns[name][along]) for name in names)
        groups.setdefault(key, []).append(along)
    return groups


def _extremes(axis: Axis, numbers: list[str], group: list[int]) -> Iterator[int]:
    yield group[0]
    for name in numbers:
        column = [(axis.columns[name][along], along) for along in group]
        yield min(column)[1]
        yield max(column)[1]


def _merge(found: Mapping[str, Saved], graph: Graph, values: list[Abstract]) -> dict[str, Saved]:
    merged = dict(found)
    for name, node in graph.saves().items():
        if name in found and values[node] is None:
            continue
        tensor = _tensor(name, values[node])
        before = found.get(name, Saved(tensor.shape, (), tensor.dtype))
        if len(before.shape) != len(tensor.shape) or before.dtype != tensor.dtype:
            raise ShapeError(
                f"node {node} (save): {name!r} is {tensor.dtype}{list(tensor.shape)} here and "
                f"{before.dtype}{list(before.shape)} in an earlier task",
                hint="tasks may differ in lengths, not in the number of dimensions or the dtype",
            )
        both = list(zip(before.shape, tensor.shape, strict=True))
        ragged = {*before.ragged, *(axis for axis, (a, b) in enumerate(both) if a != b)}
        merged[name] = Saved(tuple(max(pair) for pair in both), tuple(sorted(ragged)), tensor.dtype)
    return merged


def _tensor(name: str, value: Abstract) -> AbstractTensor:
    if isinstance(value, AbstractTensor):
        return value
    for kind, dtype in ((bool, "bool"), (int, "int64"), (float, "float32")):
        if isinstance(value, kind):
            return AbstractTensor((), dtype)
    raise ShapeError(f"{name!r} is no tensor and cannot be saved", hint="save each of its parts by itself")


def _describe(space: Space, task: int) -> str:
    bindings = space.bindings(task)
    varying = [name for axis in space.axes for name in axis.columns]
    shown = (repr(bindings[name]) for name in varying)
    short = (text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…" for text in shown)
    pairs = ", ".join(f"{name}={text}" for name, text in zip(varying, short, strict=True))
    return f"task {task}: {pairs}" if pairs else f"task {task}"
