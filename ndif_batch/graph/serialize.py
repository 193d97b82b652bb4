"""Graphs as JSON, in and out; the canonical bytes, and the digest that is a graph's identity."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from math import isfinite, isnan
from types import EllipsisType
from typing import Any, Never

from ndif_batch.errors import GraphError, nearest
from ndif_batch.graph.limits import DEFAULT, Limits
from ndif_batch.graph.nodes import (
    VERSION,
    Arg,
    Graph,
    Inputs,
    Node,
    NodeRef,
    ParamRef,
    ParamType,
    Run,
    SliceArg,
    TensorRef,
)
from ndif_batch.graph.parse import NodeReader, only, required, typed
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.syntax import shown

_GRAPH_KEYS = ("version", "params", "runs", "nodes")


def loads(text: str | bytes, limits: Limits = DEFAULT) -> Graph:
    """The graph that JSON ``text`` (UTF-8) describes; its structure is checked, its meaning is :func:`validate`'s.

    Raises only ``GraphError``, in time linear in the length of ``text``, whatever the text is.
    """
    limits.check("bytes", len(text))
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        data = json.loads(
            decoded,
            object_pairs_hook=_unique_keys,
            parse_int=_short_int,
            parse_float=_finite_float,
            parse_constant=_no_constant,
        )
    except RecursionError:
        raise GraphError("the JSON is nested too deeply", rule=Rule.JSON) from None
    except ValueError as error:
        raise GraphError(f"not JSON: {error}", rule=Rule.JSON) from None
    return graph_from_json(data)


def dumps(graph: Graph) -> bytes:
    """``graph`` as a file for people: JSON with one line a run and a node, ASCII, that :func:`loads` reads back."""
    data = graph_to_json(graph)
    runs, nodes = (
        "[\n  " + ",\n  ".join(json.dumps(item, allow_nan=False) for item in data[key]) + "\n ]" if data[key] else "[]"
        for key in ("runs", "nodes")
    )
    params = json.dumps(data["params"])
    return f'{{"version": {graph.version},\n "params": {params},\n "runs": {runs},\n "nodes": {nodes}}}\n'.encode()


def canonical(graph: Graph) -> bytes:
    """The one JSON text of ``graph``: sorted keys, no white space, ASCII."""
    data = graph_to_json(graph)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(graph: Graph) -> str:
    """BLAKE2b-256 of the canonical bytes as 64 hexadecimal digits: the graph's identity."""
    return hashlib.blake2b(canonical(graph), digest_size=32).hexdigest()


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """``graph`` as a JSON object; fields that are not set are left out."""
    return {
        "version": graph.version,
        "params": {name: str(kind) for name, kind in graph.params.items()},
        "runs": [{"name": run.name, "prompt": _prompt_to_json(run)} for run in graph.runs],
        "nodes": [node_to_json(node, i) for i, node in enumerate(graph.nodes)],
    }


def node_to_json(node: Node, i: int | None = None) -> dict[str, Any]:
    """One node as a JSON object; ``i`` is its id for error messages."""
    data: dict[str, Any] = {"op": node.op}
    if node.args:
        data["args"] = [_arg_to_json(arg, i) for arg in node.args]
    if node.kwargs:
        data["kwargs"] = {key: _arg_to_json(arg, i) for key, arg in node.kwargs}
    data |= {key: value for key in ("run", "site", "name") if (value := getattr(node, key)) is not None}
    if node.index is not None:
        data["index"] = [_arg_to_json(arg, i) for arg in node.index]
    if node.dims is not None:
        data["dims"] = list(node.dims)
    if node.step is not None:
        data["step"] = _arg_to_json(node.step, i)
    return data


def _prompt_to_json(run: Run) -> Any:
    return inputs_to_json(run.prompt) if isinstance(run.prompt, Inputs) else _arg_to_json(run.prompt, None)


def inputs_to_json(prompt: Inputs) -> dict[str, Any]:
    """``{"inputs": {name: {"tensor": digest}}}``."""
    return {"inputs": {name: {"tensor": digest} for name, digest in prompt.digests.items()}}


def _arg_to_json(arg: Arg, node: int | None) -> Any:
    match arg:
        case str():
            return {"string": arg} if arg == "..." else arg
        case float() if not isfinite(arg):
            return {"float": "nan" if isnan(arg) else "inf" if arg > 0 else "-inf"}
        case None | bool() | int() | float():
            return arg
        case EllipsisType():
            return "..."
        case NodeRef():
            return {"node": arg.node}
        case ParamRef():
            return {"param": arg.param}
        case TensorRef():
            return {"tensor": arg.digest}
        case SliceArg():
            return {"slice": [_arg_to_json(part, node) for part in (arg.start, arg.stop, arg.step)]}
        case tuple():
            return [_arg_to_json(item, node) for item in arg]
    raise GraphError(f"{type(arg).__name__} {shown(arg)} has no place in a graph", rule=Rule.WRONG_TYPE, node=node)


def graph_from_json(data: Any) -> Graph:
    """The graph that a JSON object describes; keyword arguments come in alphabetical order.

    Raises ``GraphError`` for any other object: an unknown version or key, a missing key, a value of a wrong type.
    """
    top = typed(data, dict, "the graph")
    version = typed(required(top, "version", "the graph"), int, "version")
    if version != VERSION:
        raise GraphError(f"version {shown(version)} is not known, this reads version {VERSION}", rule=Rule.VERSION)
    only(top, _GRAPH_KEYS, "the graph")
    params = typed(required(top, "params", "the graph"), dict, "params")
    runs = typed(required(top, "runs", "the graph"), list, "runs")
    nodes = typed(required(top, "nodes", "the graph"), list, "nodes")
    return Graph(
        params={name: _param_type(name, kind) for name, kind in params.items()},
        runs=tuple(_run(run, f"run {i}") for i, run in enumerate(runs)),
        nodes=tuple(NodeReader(i).node(node) for i, node in enumerate(nodes)),
        version=version,
    )


def _param_type(name: str, kind: Any) -> ParamType:
    word = typed(kind, str, f"parameter {shown(name)}")
    if word not in set(ParamType):
        raise GraphError(
            f"parameter {shown(name)} has no type {shown(word)}",
            rule=Rule.PARAMETER_TYPE,
            hint=nearest(word[:80], ParamType),
        )
    return ParamType(word)


def _run(data: Any, where: str) -> Run:
    run = typed(data, dict, where)
    only(run, ("name", "prompt"), where)
    name = typed(required(run, "name", where), str, f"{where}: name")
    prompt = required(run, "prompt", where)
    if isinstance(prompt, str):
        return Run(name, prompt)
    if isinstance(prompt, list):
        return Run(name, tuple(typed(token, int, f"{where}: token {i}") for i, token in enumerate(prompt)))
    ref = typed(prompt, dict, f"{where}: prompt", word="text, a list of token ids, tensors or a parameter")
    if "inputs" in ref:
        return Run(name, inputs_from_json(ref, f"{where}: prompt"))
    only(ref, ("param",), f"{where}: prompt")
    return Run(name, ParamRef(typed(required(ref, "param", f"{where}: prompt"), str, f"{where}: prompt")))


def inputs_from_json(data: Any, what: str) -> Inputs:
    """The inverse of :func:`inputs_to_json`; ``GraphError`` with ``what`` in it for any other JSON."""
    only(typed(data, dict, what), ("inputs",), what)
    named = typed(required(data, "inputs", what), dict, f"{what}: inputs")
    digests = {}
    for name, value in named.items():
        tensor = typed(value, dict, f"{what}: input {shown(name)}")
        only(tensor, ("tensor",), f"{what}: input {shown(name)}")
        digests[name] = typed(required(tensor, "tensor", what), str, f"{what}: input {shown(name)}")
    return Inputs.of(digests)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise GraphError(f"key {shown(twice)} stands twice in one object", rule=Rule.DUPLICATE_KEY)
    return data


def _no_constant(word: str) -> Never:
    raise GraphError(f"{word} is not JSON", rule=Rule.NUMBER, hint='write {"float": "nan"}, "inf" or "-inf"')


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise GraphError(f"the number {shown(digits)} is too large", rule=Rule.NUMBER)
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise GraphError(f"the number {shown(digits)} is too large", rule=Rule.NUMBER)
    return value
