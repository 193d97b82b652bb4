"""Python values as arguments of nodes, and what their places say about the types of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, ParamType, SliceArg, TensorRef, leaves
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.signatures import ArgType, Signature
from ndif_batch.trace import constants
from ndif_batch.trace.parameters import Param
from ndif_batch.trace.place import refusal
from ndif_batch.trace.proxy import Proxy
from ndif_batch.trace.storage import Index

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder

_USES: Mapping[ArgType, ParamType | None] = {
    ArgType.TENSOR: ParamType.TENSOR,
    ArgType.TENSORS: ParamType.TENSOR,
    ArgType.OPERAND: None,
    ArgType.NUMBER: None,
    ArgType.VALUE: None,
    ArgType.INT: ParamType.INT,
    ArgType.INTS: ParamType.INT,
    ArgType.INDEX: ParamType.INT,
    ArgType.BOOL: ParamType.BOOL,
    ArgType.STR: ParamType.STR,
    ArgType.DTYPE: ParamType.STR,
}


class Arguments:
    """Converts what the user gives; knows which nodes are plain numbers made of parameters and lengths."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._numbers: dict[int, frozenset[str] | None] = {}

    def convert(self, value: Any) -> Arg:
        """``value`` as an argument; ``TraceError`` for what a graph cannot hold."""
        if isinstance(value, Proxy):
            return NodeRef(value.current())
        if isinstance(value, Param):
            return self._recorder.parameters.meet(value)
        if value is None or isinstance(value, bool | int | float | str | EllipsisType):
            return value
        if isinstance(value, slice):
            return SliceArg(self.convert(value.start), self.convert(value.stop), self.convert(value.step))
        if isinstance(value, tuple | list | range):
            return tuple(self.convert(item) for item in value)
        if isinstance(value, np.generic):
            return self.convert(value.item())
        if constants.is_dtype(value):
            return constants.dtype_name(value)
        if constants.is_tensor(value):
            return TensorRef(constants.take(self._recorder.constants, value))
        raise refusal(
            f"{value!r} cannot stand in a graph",
            hint="a graph holds recorded values, parameters, tensors and plain numbers; of a module, take .output",
        )

    def value(self, value: Any) -> Arg:
        """``value`` where a tensor or a number stands."""
        arg = self.convert(value)
        self._note(leaves(arg), None)
        return arg

    def index(self, index: Any) -> Index:
        """What stands in square brackets, one item for each axis."""
        items = tuple(self.convert(item) for item in (index if isinstance(index, tuple) else (index,)))
        self._note(leaves(items), ParamType.INT)
        return items or (...,)

    def is_basic(self, index: Index) -> bool:
        """Whether the index gives a view: positions, slices, ``None`` and ``...`` only."""
        return all(self._is_basic(item) for item in index)

    def note(self, signature: Signature, bound: Mapping[str, Any]) -> None:
        """Notes what the places of an operation's arguments say of the parameters that stand there."""
        for parameter in signature.parameters:
            self._note(leaves(bound[parameter.name]), _USES[parameter.type])

    def _note(self, args: Iterable[Arg], kind: ParamType | None) -> None:
        for arg in args:
            if isinstance(arg, ParamRef) or kind is ParamType.INT:
                for name in self._params(arg):
                    self._recorder.parameters.use(name, kind)

    def _params(self, arg: Arg) -> frozenset[str]:
        if isinstance(arg, ParamRef):
            return frozenset((arg.param,))
        return (self._number(arg.node) or frozenset()) if isinstance(arg, NodeRef) else frozenset()

    def _is_number(self, arg: Arg) -> bool:
        if isinstance(arg, ParamRef):
            return self._recorder.parameters.explicit(arg.param) is not ParamType.TENSOR
        return self._number(arg.node) is not None if isinstance(arg, NodeRef) else isinstance(arg, int | float)

    def _is_basic(self, item: Arg) -> bool:
        if isinstance(item, bool):
            return False
        return item is None or isinstance(item, SliceArg | EllipsisType) or self._is_number(item)

    def _number(self, node: int) -> frozenset[str] | None:
        """The parameters that a node is a plain number of; ``None`` if it is no plain number."""
        if node not in self._numbers:
            self._numbers[node] = self._find_number(self._recorder.nodes[node])
        return self._numbers[node]

    def _find_number(self, node: Node) -> frozenset[str] | None:
        first = node.args[0] if node.args else None
        if node.op == "size":
            return frozenset() if len(node.args) + len(node.kwargs) > 1 else None
        if node.op == "getitem":
            source = self._recorder.nodes[first.node] if isinstance(first, NodeRef) else None
            return frozenset() if source is not None and source.op == "size" else None
        if any(parameter.type is not ArgType.OPERAND for parameter in OPERATIONS[node.op].parameters):
            return None
        numbers = bool(node.args) and all(map(self._is_number, node.args))
        return frozenset(name for arg in node.args for name in self._params(arg)) if numbers else None
