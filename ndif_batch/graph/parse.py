"""One node's JSON read into a ``Node``; what is not exactly of the right form is an error that names the node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, TypeVar

from ndif_batch.errors import GraphError, nearest
from ndif_batch.graph.limits import MAX_DEPTH
from ndif_batch.graph.nodes import Arg, Node, NodeRef, ParamRef, SliceArg, Step, TensorRef
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.syntax import shown

_NODE_KEYS = ("op", "args", "kwargs", "run", "site", "index", "name", "dims", "step")
_ARG_KEYS = ("node", "param", "tensor", "slice", "float", "string")
_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_WORDS = {bool: "true or false", int: "an integer", str: "a string", list: "a list", dict: "an object"}
_T = TypeVar("_T", bool, int, str, list[Any], dict[str, Any])


class NodeReader:
    """Reads the JSON of node ``i``; every error names the node."""

    def __init__(self, i: int) -> None:
        self.i = i

    def node(self, data: Any) -> Node:
        """The node; keyword arguments in alphabetical order."""
        node = typed(data, dict, "the node", self.i)
        only(node, _NODE_KEYS, "the node", self.i)
        kwargs = self._optional(node, "kwargs", dict) or {}
        index = self._optional(node, "index", list)
        dims = self._optional(node, "dims", list)
        return Node(
            op=typed(required(node, "op", "the node", self.i), str, "op", self.i),
            args=self._args(self._optional(node, "args", list) or ()),
            kwargs=tuple((key, self._arg(kwargs[key], 0)) for key in sorted(kwargs)),
            run=self._optional(node, "run", int),
            site=self._optional(node, "site", str),
            index=None if index is None else self._args(index),
            name=self._optional(node, "name", str),
            dims=None if dims is None else tuple(typed(dim, str, "a dimension's name", self.i) for dim in dims),
            step=self._step(node["step"]) if "step" in node else None,
        )

    def _step(self, data: Any) -> Step:
        step = self._arg(data, 0)
        if isinstance(step, bool) or not isinstance(step, int | SliceArg):
            raise self._wrong(f"a step is a number or a slice, not {shown(data)}")
        return step

    def _optional(self, node: Mapping[str, Any], key: str, kind: type[_T]) -> _T | None:
        return typed(node[key], kind, key, self.i) if key in node else None

    def _args(self, items: Iterable[Any]) -> tuple[Arg, ...]:
        return tuple(self._arg(item, 0) for item in items)

    def _arg(self, data: Any, depth: int) -> Arg:
        if depth > MAX_DEPTH:
            raise GraphError(f"an argument is nested more than {MAX_DEPTH} deep", rule=Rule.LIMIT, node=self.i)
        match data:
            case str():
                return ... if data == "..." else data
            case None | bool():
                return data
            case int():
                return typed(data, int, "a number", self.i)
            case float():
                return finite(data, self.i)
            case list():
                return tuple(self._arg(item, depth + 1) for item in data)
            case dict() if len(data) == 1:
                only(data, _ARG_KEYS, "an argument", self.i)
                [(key, value)] = data.items()
                return self._tagged(key, value, depth)
        raise self._wrong(f"an argument is a plain value, a list or an object with one key, not {shown(data)}")

    def _tagged(self, key: str, value: Any, depth: int) -> Arg:
        if key == "node":
            return NodeRef(typed(value, int, key, self.i))
        if key == "slice":
            parts = typed(value, list, key, self.i)
            if len(parts) != 3:
                raise self._wrong(f"a slice is [start, stop, step], not {shown(parts)}")
            return SliceArg(*(self._arg(part, depth + 1) for part in parts))
        word = typed(value, str, key, self.i)
        if key == "float":
            if word not in _FLOATS:
                raise self._wrong(f'a "float" is one of {", ".join(_FLOATS)}, not {shown(word)}')
            return _FLOATS[word]
        if key == "string":
            if word != "...":
                raise self._wrong(f'"string" is only for the text "...", write {shown(word)} itself')
            return word
        return ParamRef(word) if key == "param" else TensorRef(word)

    def _wrong(self, message: str) -> GraphError:
        return GraphError(message, rule=Rule.WRONG_TYPE, node=self.i)


def typed(data: Any, kind: type[_T], what: str, node: int | None = None, *, word: str | None = None) -> _T:
    """``data`` if it is of JSON type ``kind``, integers being 64 bits long; ``what`` names it in the error."""
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise GraphError(f"{what} must be {word or _WORDS[kind]}, not {shown(data)}", rule=Rule.WRONG_TYPE, node=node)
    if isinstance(data, int) and not -(2**63) <= data < 2**63:
        raise GraphError(f"{what} does not fit in 64 bits", rule=Rule.NUMBER, node=node)
    return data


def finite(number: float, node: int | None = None) -> float:
    """``number`` if it is finite."""
    if not isfinite(number):
        raise GraphError(
            f"{number} is not JSON", rule=Rule.NUMBER, node=node, hint='write {"float": "nan"}, "inf" or "-inf"'
        )
    return number


def required(data: Mapping[str, Any], key: str, what: str, node: int | None = None) -> Any:
    """``data[key]``, which must be there."""
    if key not in data:
        raise GraphError(f"{what} has no {key!r}", rule=Rule.MISSING_KEY, node=node)
    return data[key]


def only(data: Mapping[str, Any], keys: tuple[str, ...], what: str, node: int | None = None) -> None:
    """Raises ``GraphError`` with the nearest of ``keys`` when ``data`` has any other."""
    for key in data:
        if key not in keys:
            raise GraphError(
                f"{what} has an unknown key {shown(key)}",
                rule=Rule.UNKNOWN_KEY,
                node=node,
                hint=nearest(str(key)[:80], keys),
            )
