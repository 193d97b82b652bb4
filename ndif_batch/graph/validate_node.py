"""Checks one node of a graph: its fields, its site, and each of its arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType

from ndif_batch.errors import GraphError, nearest
from ndif_batch.graph.limits import Limits
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, SliceArg, TensorRef, leaves
from ndif_batch.graph.operations import OPERATIONS, Kind
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.signatures import ArgType, Parameter
from ndif_batch.graph.sites import ALL_SITES
from ndif_batch.graph.steps import choice_of, counts_from_the_end, generations, steps_of
from ndif_batch.graph.syntax import (
    DIGEST,
    DIM_NAME,
    LONGEST_SITE,
    PATH,
    PLACEHOLDER,
    SAVE_NAME,
    SITE,
    cut,
    is_storable,
    shown,
)

_NUMBERS = frozenset({ParamType.INT, ParamType.FLOAT, ParamType.BOOL})
_BINDABLE: Mapping[ArgType, frozenset[ParamType]] = {
    ArgType.TENSOR: frozenset({ParamType.TENSOR}),
    ArgType.TENSORS: frozenset({ParamType.TENSOR}),
    ArgType.OPERAND: _NUMBERS | {ParamType.TENSOR},
    ArgType.VALUE: _NUMBERS | {ParamType.TENSOR},
    ArgType.NUMBER: _NUMBERS,
    ArgType.INT: frozenset({ParamType.INT}),
    ArgType.INTS: frozenset({ParamType.INT}),
    ArgType.INDEX: frozenset({ParamType.INT, ParamType.TENSOR}),
    ArgType.BOOL: frozenset({ParamType.BOOL}),
    ArgType.STR: frozenset({ParamType.STR}),
    ArgType.DTYPE: frozenset({ParamType.STR}),
}
_LEAVES = ", ".join(f".{name}" for name in ALL_SITES)
_INDEX = Parameter("index", ArgType.INDEX)
_FIELDS = ("run", "site", "index", "name", "dims", "step")


def check_known(param: str, params: Mapping[str, ParamType], node: int | None = None) -> ParamType:
    """The type of ``param``; ``GraphError`` with the nearest name if the graph has no such parameter."""
    if param not in params:
        raise GraphError(
            f"there is no parameter {shown(param)}",
            rule=Rule.UNKNOWN_PARAMETER,
            node=node,
            hint=nearest(param[:80], params),
        )
    return params[param]


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """The rules of node ``i`` of ``graph``."""

    graph: Graph
    i: int
    node: Node
    limits: Limits

    def check(self) -> None:
        """Raises ``GraphError`` for the first rule that the node breaks."""
        if self.node.op not in OPERATIONS:
            raise self._error(
                f"there is no operation {shown(self.node.op)}",
                Rule.UNKNOWN_OPERATION,
                hint=nearest(self.node.op[:80], OPERATIONS),
            )
        self._check_fields()
        if self.node.run is not None and not 0 <= self.node.run < len(self.graph.runs):
            raise self._error(
                f"run {self.node.run} is not one of the graph's {len(self.graph.runs)} runs", Rule.RUN_RANGE
            )
        if self.node.site is not None:
            self._check_site(self.node.site)
        self._check_arguments()
        bound = self._bind()
        for parameter in OPERATIONS[self.node.op].parameters:
            self._check_bindable(bound[parameter.name], parameter)
        self._check_own_rules(tuple(bound.values()))

    def _check_fields(self) -> None:
        allowed = OPERATIONS[self.node.op].fields
        for field in _FIELDS:
            is_set = getattr(self.node, field) is not None
            if is_set and field not in allowed and f"{field}?" not in allowed:
                raise self._error(f"{self.node.op} has no {field!r}", Rule.STRAY_FIELD)
            if not is_set and field in allowed:
                raise self._error(f"{self.node.op} needs {field!r}", Rule.MISSING_FIELD)

    def _check_site(self, site: str) -> None:
        touches = self.node.op in ("read", "write")
        if len(site) > LONGEST_SITE or not re.fullmatch(SITE if touches else PATH, site):
            wanted = f"a module path and one of {_LEAVES}" if touches else "a module path"
            raise self._error(
                f"{shown(site)} is not {wanted}",
                Rule.SITE,
                hint="such as model.layers.{layer}.mlp" + ".output" * touches,
            )
        for param in re.findall(PLACEHOLDER, site):
            kind = check_known(param, self.graph.params, self.i)
            if kind not in (ParamType.INT, ParamType.STR):
                raise self._error(
                    f"parameter {param!r} in a site must be of type int or str, not {kind}", Rule.PARAMETER_TYPE
                )

    def _check_arguments(self) -> None:
        self.limits.check("arguments", len(self.node.args) + len(self.node.kwargs), node=self.i)
        self.limits.check("index", len(self.node.index or ()), node=self.i)
        for arg in self.node.arguments():
            self._check_arg(arg, 0)

    def _check_arg(self, arg: Arg, depth: int) -> None:
        self.limits.check("depth", depth, node=self.i)
        match arg:
            case tuple():
                self.limits.check("list", len(arg), node=self.i)
                for item in arg:
                    self._check_arg(item, depth + 1)
            case SliceArg():
                for part in (arg.start, arg.stop, arg.step):
                    self._check_arg(part, depth + 1)
            case NodeRef():
                self._check_reference(arg.node)
            case ParamRef():
                check_known(arg.param, self.graph.params, self.i)
            case TensorRef():
                if not re.fullmatch(DIGEST, arg.digest):
                    raise self._error(f"{shown(arg.digest)} is no digest of a tensor", Rule.TENSOR)
            case str():
                self._check_string(arg)
            case int():
                if not -(2**63) <= arg < 2**63:
                    raise self._error("an integer does not fit in 64 bits", Rule.NUMBER)
            case None | float() | EllipsisType():
                pass
            case _:
                raise self._error(f"{type(arg).__name__} has no place in a graph", Rule.WRONG_TYPE)

    def _check_string(self, text: str) -> None:
        self.limits.check("string", len(text), node=self.i)
        if not is_storable(text):
            raise self._error("a string holds a character that is not valid text", Rule.TEXT)

    def _check_reference(self, target: int) -> None:
        if not 0 <= target < self.i:
            raise self._error(f"takes node {target}, which does not come before it", Rule.NODE_ORDER)
        op = self.graph.nodes[target].op
        gives_nothing = op == "write" or OPERATIONS[op].kind in (Kind.CONTROL, Kind.OUT)
        if gives_nothing and (self.node.op, op) != ("grad", "backward"):
            raise self._error(f"takes node {target}, a {op}, which gives no value", Rule.NO_VALUE)

    def _bind(self) -> Mapping[str, Arg]:
        names = [name for name, _ in self.node.kwargs]
        if len(set(names)) < len(names):
            raise self._error("an argument is given twice by name", Rule.ARGUMENTS)
        for name in names:
            self._check_string(name)
        try:
            return OPERATIONS[self.node.op].bind(self.node.args, dict(self.node.kwargs))
        except ValueError as error:
            raise self._error(f"{self.node.op}: {cut(str(error))}", Rule.ARGUMENTS) from None

    def _check_bindable(self, arg: Arg, parameter: Parameter) -> None:
        for leaf in leaves(arg):
            if isinstance(leaf, ParamRef):
                kind = self.graph.params[leaf.param]
                if kind not in _BINDABLE[parameter.type]:
                    raise self._error(
                        f"parameter {leaf.param!r} of type {kind} cannot be argument {parameter.name!r}"
                        f" of {self.node.op}, which is {parameter.type}",
                        Rule.PARAMETER_TYPE,
                    )

    def _check_own_rules(self, bound: tuple[Arg, ...]) -> None:
        if self.node.index is not None:
            self._check_index(self.node.index)
        if self.node.dims is not None:
            self._check_dims(self.node.dims)
        if self.node.op == "print" and not re.fullmatch(SAVE_NAME, self.node.name or ""):
            raise self._error(f"{shown(self.node.name)} cannot name what is printed", Rule.SAVE_NAME)
        if self.node.op == "grad":
            self._check_grad(bound)
        if self.node.op == "steps":
            self._check_steps(bound)
        if self.node.op == "tokens" or self.node.step is not None:
            self._check_step()

    def _check_index(self, index: tuple[Arg, ...]) -> None:
        if not index or not _INDEX.accepts(index):
            raise self._error(
                f"{shown(index)} is not an index", Rule.INDEX, hint="integers, slices, ..., tensors; at least one"
            )
        if sum(item is ... for item in index) > 1:
            raise self._error("an index has more than one '...'", Rule.INDEX)
        self._check_bindable(index, _INDEX)

    def _check_dims(self, dims: tuple[str, ...]) -> None:
        self.limits.check("dims", len(dims), node=self.i)
        for dim in dims:
            if not re.fullmatch(DIM_NAME, dim):
                raise self._error(f"{shown(dim)} cannot name a dimension", Rule.DIMS, hint=f"a name is {DIM_NAME}")
        if len(set(dims)) < len(dims):
            raise self._error(f"two dimensions have the same name: {', '.join(dims)}", Rule.DIMS)

    def _check_grad(self, bound: tuple[Arg, ...]) -> None:
        ops = [self.graph.nodes[arg.node].op if isinstance(arg, NodeRef) else None for arg in bound]
        if ops != ["read", "backward"]:
            raise self._error("grad takes a read and a backward", Rule.GRAD)

    def _check_steps(self, bound: tuple[Arg, ...]) -> None:
        if type(bound[0]) is not int:
            raise self._error("the number of steps is not written in the graph", Rule.STEPS)
        self.limits.check("steps", bound[0], node=self.i)
        if any(isinstance(leaf, NodeRef) for leaf in leaves(bound)):
            raise self._error("how tokens are chosen cannot depend on a node", Rule.STEPS, hint="use a parameter")
        if any(other.op == "steps" and other.run == self.node.run for other in self.graph.nodes[: self.i]):
            raise self._error(f"run {self._run!r} has a number of steps already", Rule.STEPS)
        try:
            choice_of(self.node, {}).check()
        except ValueError as error:
            raise self._error(str(error), Rule.STEPS) from None

    def _check_step(self) -> None:
        steps = generations(self.graph).get(-1 if self.node.run is None else self.node.run)
        if steps is None:
            raise self._error(
                f"run {self._run!r} generates nothing, so it has no steps", Rule.STEPS, hint="say how many: steps"
            )
        try:
            own = steps_of(self.node.step, steps.count)
        except ValueError as error:
            raise self._error(str(error), Rule.STEPS) from None
        if steps.stop and self.node.step is not None and counts_from_the_end(self.node.step):
            raise self._error(
                "where a run may stop early it is not known before which step is the last",
                Rule.STEPS,
                hint="count steps from the first, or read all of them and take the last position",
            )
        if not own:
            raise self._error(f"{shown(self.node.step)} names none of the {steps.count} steps", Rule.STEPS)

    @property
    def _run(self) -> str:
        return self.graph.runs[self.node.run or 0].name

    def _error(self, message: str, rule: Rule, *, hint: str | None = None) -> GraphError:
        return GraphError(message, rule=rule, node=self.i, hint=hint)
