"""One forward pass over the runs of many tasks: hooks at the sites that they touch, an end where nobody needs more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ndif_batch.engine.bounds import check_places
from ndif_batch.engine.interpreter import TaskRun
from ndif_batch.engine.layout import forward
from ndif_batch.engine.model import LoadedModel
from ndif_batch.engine.pack import Kept, Pack, Segment
from ndif_batch.engine.program import Visit
from ndif_batch.engine.views import SiteBuffer
from ndif_batch.graph.sites import Site
from ndif_batch.models.probe import first_argument

Key = tuple[int, int]
"""A task's place in the batch, and one of its runs."""


class _PassEnd(Exception):  # noqa: N818  not an error: nobody needs what comes after
    """Raised inside the model where a pass is over."""


@dataclass(frozen=True)
class PassPlan:
    """What one pass runs: ``segment_of`` says where each task's run lies among ``runs``.

    Unchanged runs of the same tokens are one run. ``kept`` has, for each run, the positions that go through the
    model's last module.
    """

    stage: int
    runs: tuple[tuple[int, ...], ...]
    segment_of: dict[Key, int]
    kept: tuple[tuple[int, ...], ...]
    depth: int
    due: dict[int, list[int]]


def plan_pass(tasks: Sequence[TaskRun], stage: int) -> PassPlan | None:
    """The pass of ``stage``, or ``None`` if no task that is still well has a run in it."""
    runs: list[tuple[int, ...]] = []
    kept: list[set[int] | None] = []
    shared: dict[tuple[int, ...], int] = {}
    segment_of: dict[Key, int] = {}
    due: dict[int, list[int]] = {}
    depth = -1
    for place, task in enumerate(tasks):
        if task.error is not None:
            continue
        for visit in task.program.visits:
            if visit.stage == stage:
                segment_of[place, visit.run] = _place(task, visit, runs, kept, shared)
                depth = max(depth, visit.depth)
        for order in task.due(stage):
            due.setdefault(order, []).append(place)
    if not runs:
        return None
    positions = tuple(
        tuple(range(len(run))) if some is None else tuple(sorted(some)) for run, some in zip(runs, kept, strict=True)
    )
    return PassPlan(stage, tuple(runs), segment_of, positions, depth, due)


def _place(
    task: TaskRun,
    visit: Visit,
    runs: list[tuple[int, ...]],
    kept: list[set[int] | None],
    shared: dict[tuple[int, ...], int],
) -> int:
    tokens = task.program.tokens(visit.run)
    where = None if visit.changed else shared.get(tokens)
    if where is None:
        where = len(runs)
        runs.append(tokens)
        kept.append(set())
        if not visit.changed:
            shared[tokens] = where
    some = kept[where]
    kept[where] = None if some is None or visit.positions is None else some | set(visit.positions)
    return where


def run_pass(model: LoadedModel, tasks: Sequence[TaskRun], plan: PassPlan) -> int:
    """One forward pass; the tasks' values and saves are in their ``TaskRun`` afterwards. Gives its tokens."""
    going = _Pass(model, tasks, plan)
    with going.hooks(), torch.no_grad(), suppress(_PassEnd):
        forward(model.module, going.pack, packed=model.layout.packed)
    return going.pack.tokens


def apply_module(module: nn.Module, args: tuple[Any, ...]) -> Any:
    """Applies one of the model's modules to values of a graph: no site is touched by it."""
    if isinstance(module, nn.Embedding):
        check_places(args[0], module.num_embeddings)
    token = _applying.set(True)
    try:
        return module(*args)
    finally:
        _applying.reset(token)


_applying: ContextVar[bool] = ContextVar("applying", default=False)


class _Pass:
    """The hooks of one pass."""

    def __init__(self, model: LoadedModel, tasks: Sequence[TaskRun], plan: PassPlan) -> None:
        self._model = model
        self._tasks = tasks
        self._plan = plan
        self.pack = Pack.of(plan.runs, model.device)
        self._kept = Kept.of(plan.kept)
        self._trim = self._head_order() is not None and any(
            len(kept) < len(run) for kept, run in zip(plan.kept, plan.runs, strict=True)
        )

    def _head_order(self) -> int | None:
        sites = self._model.sites
        head = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
        return head.order if head is not None and head.order <= self._plan.depth else None

    @contextmanager
    def hooks(self) -> Iterator[None]:
        handles = []
        if self._trim:
            head = self._model.submodule(str(self._model.sites.head))
            handles.append(head.register_forward_pre_hook(self._trimming(), with_kwargs=True))
        for site in self._model.sites.sites.values():
            if site.order in self._plan.due or site.order == self._plan.depth:
                path, _, leaf = site.path.rpartition(".")
                module = self._model.submodule(path)
                if leaf == "input":
                    handles.append(module.register_forward_pre_hook(self._entering(site), with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(self._leaving(site)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _trimming(self) -> Callable[..., Any]:
        site = self._model.sites.sites[f"{self._model.sites.head}.input"]
        axis = site.value.token_axes[0]  # type: ignore[union-attr]
        index = self._kept.index(self.pack)

        def trim(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if _applying.get():
                return None
            whole = first_argument(args, kwargs)
            return _with_first(args, kwargs, whole.index_select(axis, index.to(whole.device)))

        return trim

    def _entering(self, site: Site) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if _applying.get():
                return None
            point = self._visit(site, first_argument(args, kwargs))
            return _with_first(args, kwargs, point.buffer.value) if point.buffer.written else None

        return hook

    def _leaving(self, site: Site) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if _applying.get():
                return None
            point = self._visit(site, output)
            return point.buffer.value if point.buffer.written else None

        return hook

    def _visit(self, site: Site, value: Any) -> _Point:
        point = _Point(site, SiteBuffer(value, site.value), self._plan, self._segments(site), self._kept)
        for place in self._plan.due.get(site.order, ()):
            point.place = place
            self._tasks[place].advance(self._plan.stage, site.order, point)
        if site.order == self._plan.depth:
            raise _PassEnd
        return point

    def _segments(self, site: Site) -> tuple[Segment, ...]:
        head = self._head_order()
        trimmed = self._trim and head is not None and site.order >= head
        return self._kept.segments if trimmed else self.pack.segments


class _Point:
    """A site of a running pass, seen from one task at a time (``place``)."""

    def __init__(
        self, site: Site, buffer: SiteBuffer, plan: PassPlan, segments: tuple[Segment, ...], kept: Kept
    ) -> None:
        self.buffer = buffer
        self.place = 0
        self._site = site
        self._plan = plan
        self._segments = segments
        self._kept = kept

    def read(self, task: TaskRun, node: int) -> Any:
        """What the run of node ``node`` sees here; of the last module only the positions that are asked for."""
        number = self._number(task, node)
        seen = self.buffer.view(self._segments[number])
        asked = task.program.reads.get(node)
        if asked is None or asked == self._kept.positions[number]:
            return seen
        axis = self._site.value.token_axes[0]  # type: ignore[union-attr]
        places = self._kept.places[number]
        index = [places[position] for position in asked]
        return seen.index_select(axis, torch.tensor(index, device=seen.device))

    def write(self, task: TaskRun, node: int, index: tuple[Any, ...], value: Any) -> None:
        """Overwrites what the run of node ``node`` sees here."""
        self.buffer.write(self._segments[self._number(task, node)], index, value)

    def _number(self, task: TaskRun, node: int) -> int:
        run = task.program.graph.nodes[node].run
        assert run is not None
        return self._plan.segment_of[self.place, run]


def _with_first(args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, next(iter(kwargs)): value}
