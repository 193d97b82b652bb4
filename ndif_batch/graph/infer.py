"""What every node of a bound graph will be, found without running the model: shapes, dtypes, plain numbers, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from ndif_batch.errors import ModelError, ShapeError, UsageError, nearest
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.indexes import OutsideError, select
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg, TensorRef, map_arg
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue
from ndif_batch.graph.steps import generations, step_by_step, steps_of


def infer(graph: Graph, sites: SiteMap, constants: Mapping[str, AbstractTensor] | None = None) -> list[Abstract]:
    """The abstract value of each node; ``None`` where it has none (writes, control).

    ``graph`` is bound: it has no parameters, and its prompts are token ids. ``constants`` has the shape and dtype of
    each constant tensor by digest. ``ShapeError`` names the node and the operation that cannot take what it gets,
    ``ModelError`` a site, module or weight that the model does not have.
    """
    return _Inference(graph, sites, constants or {}).values()


def infer_stopped(
    graph: Graph, sites: SiteMap, constants: Mapping[str, AbstractTensor] | None = None, *, steps: int
) -> list[Abstract]:
    """As :func:`infer`, if every run that may stop early takes so many steps; ``None`` for what is not known then."""
    return _Inference(graph, sites, constants or {}, steps).values_known()


def total_cost(graph: Graph, values: list[Abstract]) -> int:
    """FLOPs of the graph's own operations on ``values``, as :func:`infer` gives them; the model's are not in it."""

    def leaf(arg: Arg) -> Any:
        return values[arg.node] if isinstance(arg, NodeRef) else arg

    total = 0
    for node, value in zip(graph.nodes, values, strict=True):
        args = [map_arg(arg, leaf) for arg in node.args]
        kwargs = [(name, map_arg(arg, leaf)) for name, arg in node.kwargs]
        operation = OPERATIONS[node.op]
        total += operation.cost(operation.arrange(args, kwargs), value)
    return total


_Axes: TypeAlias = "list[Run | None] | tuple[_Axes, ...] | None"
"""The run whose tokens lie along each axis of a tensor; a tuple of these for a tuple."""


class _Inference:
    def __init__(
        self, graph: Graph, sites: SiteMap, constants: Mapping[str, AbstractTensor], stopped: int | None = None
    ) -> None:
        self.graph = graph
        self.sites = sites
        self.constants = constants
        self.known: list[Abstract] = []
        self.generations = generations(graph)
        self.stopped = stopped

    def values(self) -> list[Abstract]:
        for i, node in enumerate(self.graph.nodes):
            try:
                self.known.append(self._value(node))
            except OutsideError as error:
                raise ShapeError(f"node {i} ({node.op}): {self._outside(node, error)}") from None
            except ShapeError as error:
                raise ShapeError(f"node {i} ({node.op}): {error.message}", hint=error.hint) from None
            except (ValueError, OverflowError) as error:
                raise ShapeError(f"node {i} ({node.op}): {error}") from None
            except ModelError as error:
                raise ModelError(f"node {i} ({node.op}): {error.message}", hint=error.hint) from None
        return self.known

    def values_known(self) -> list[Abstract]:
        for node in self.graph.nodes:
            try:
                self.known.append(self._value(node))
            except (UsageError, ValueError, OverflowError):
                self.known.append(None)
        return self.known

    def _taken(self, run: int) -> int:
        """How many steps a run takes."""
        own = self.generations[run]
        return own.count if self.stopped is None or not own.stop else min(self.stopped, own.count)

    def _value(self, node: Node) -> Abstract:
        if isinstance(node.step, SliceArg) and node.op in ("write", "skip"):
            return self._at_steps(node, node.step)
        operation = OPERATIONS[node.op]
        bound = operation.arrange(node.args, node.kwargs)
        for name, arg in bound.items():
            bound[name] = self._resolve(arg)
        operation.check(bound)
        if node.site is not None:
            self._add_site(node, bound)
        elif node.op == "tokens":
            bound["count"] = self._taken(node.run or 0)
        return operation.shape(bound)

    def _at_steps(self, node: Node, step: SliceArg) -> Abstract:
        """A write is made at each step by itself: here at the prompt's, if it is one of them, and at a later one."""
        steps = steps_of(step, self.generations[node.run or 0].count)
        behind = step_by_step(self.graph, len(self.known))
        joined = {i: self.known[i] for i in behind}
        for one in {min(steps), max(steps)}:
            for i in sorted(behind):
                own = self.graph.nodes[i]
                self.known[i] = self._value(replace(own, step=one) if own.op == "read" else own)
            self._value(replace(node, step=one))
            for i, value in joined.items():
                self.known[i] = value
        return None

    def _resolve(self, arg: Arg) -> Any:
        kind = type(arg)
        if kind is NodeRef:
            return self.known[arg.node]  # type: ignore[union-attr]
        if kind is int or kind is float or kind is str or arg is None:
            return arg
        return map_arg(arg, self._leaf)

    def _leaf(self, arg: Arg) -> Any:
        if isinstance(arg, NodeRef):
            return self.known[arg.node]
        if isinstance(arg, TensorRef):
            if arg.digest not in self.constants:
                raise ShapeError(f"the shape of constant {arg.digest[:12]}… is not known")
            return self.constants[arg.digest]
        return arg

    def _add_site(self, node: Node, bound: dict[str, Any]) -> None:
        path = str(node.site)
        if node.op == "weight":
            bound["site"] = self._weight(path)
        elif node.op == "call":
            self._check_module(path)
            bound["takes"] = self.sites.site(f"{path}.input").value
            bound["gives"] = self.sites.site(f"{path}.output").value
        elif node.op == "skip":
            self._check_module(path)
            bound["site"] = _at(self.sites.site(f"{path}.output").value, self._tokens(node))
        else:
            value = self.sites.site(path).value
            bound["site"] = _at(value, self._tokens(node), self._seen(node, value))
            if node.op == "write":
                bound["index"] = None if node.index is None else self._resolve(node.index)

    def _weight(self, path: str) -> AbstractTensor:
        if path not in self.sites.weights:
            raise ModelError(f"the model has no weight {path!r}", hint=nearest(path, self.sites.weights))
        return AbstractTensor(*self.sites.weights[path])

    def _check_module(self, path: str) -> None:
        if f"{path}.output" not in self.sites.sites:
            raise ModelError(f"the model has no module {path!r}", hint=nearest(path, self.sites.modules))

    def _tokens(self, node: Node) -> int:
        if node.run is None:
            raise ShapeError("the node names no run")
        run = self.graph.runs[node.run]
        if not isinstance(run.prompt, tuple):
            raise ShapeError(f"the prompt of run {run.name!r} is not given as token ids")
        length = len(run.prompt)
        if node.step is None:
            return length
        taken = self._taken(node.run) if isinstance(node.step, SliceArg) else self.generations[node.run].count
        steps = steps_of(node.step, self.generations[node.run].count)
        return sum(1 if step else length for step in steps if step < taken)

    def _seen(self, node: Node, value: SiteValue) -> int | None:
        """How many tokens a run has seen at a step; ``ShapeError`` for several steps, at each of which it is another
        number."""
        if node.step is None or node.run is None or not isinstance(value, SiteTensor) or value.seen is None:
            return None
        if isinstance(node.step, SliceArg):
            raise ShapeError(f"site {node.site!r} has another shape at each step", hint="take one step")
        (step,) = steps_of(node.step, self.generations[node.run].count)
        return self._tokens(replace(node, step=0)) + step

    def _outside(self, node: Node, error: OutsideError) -> str:
        axes = self._site_axes(node) if node.op == "write" else self._axes(node.args[0])
        index = node.index or ()
        if isinstance(axes, tuple) and index and type(index[0]) is int:
            axes = axes[index[0]]
        run = axes[error.axis] if isinstance(axes, list) else None
        if run is None or not isinstance(run.prompt, tuple) or len(run.prompt) != error.length:
            return error.message
        return f"position {error.position} is outside the {error.length} tokens of run {run.name!r}"

    def _axes(self, arg: Arg) -> _Axes:
        """The axes of a value that a graph reads or indexes; unknown for any other."""
        node = self.graph.nodes[arg.node] if isinstance(arg, NodeRef) else None
        if node is not None and node.op == "read":
            return self._site_axes(node)
        if node is None or node.op != "getitem":
            return None
        bound = OPERATIONS["getitem"].arrange(node.args, node.kwargs)
        axes, source, index = self._axes(bound["input"]), self._resolve(bound["input"]), self._resolve(bound["index"])
        if isinstance(axes, tuple):
            return axes[index[0] if isinstance(index, tuple) else index]
        if axes is None or not isinstance(source, AbstractTensor):
            return None
        return [None if axis is None else axes[axis] for axis in select(source.shape, index).origin]

    def _site_axes(self, node: Node) -> _Axes:
        def axes(value: SiteValue) -> _Axes:
            if isinstance(value, SiteTensor):
                return [run if i in (*value.token_axes, value.seen) else None for i in range(len(value.shape))]
            return None if value is None else tuple(axes(item) for item in value)

        run = None if node.run is None else self.graph.runs[node.run]
        return axes(self.sites.site(str(node.site)).value)


def _at(value: SiteValue, tokens: int, seen: int | None = None) -> Abstract:
    if isinstance(value, SiteTensor):
        return AbstractTensor(value.at(tokens, seen), value.dtype)
    return None if value is None else tuple(_at(item, tokens) for item in value)
