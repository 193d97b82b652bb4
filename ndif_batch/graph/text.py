"""A graph as text for people: a line a run, a line a node."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, SliceArg, TensorRef
from ndif_batch.graph.syntax import shown

_LONGEST_LIST = 16


def to_text(graph: Graph) -> str:
    """A valid graph's parameters, runs and nodes, such as ``%3 = getitem(%0, [..., {position}])``; no line is long."""
    lines = [f"param {{{name}}}: {kind}" for name, kind in graph.params.items()]
    lines += [f"run {run.name} = {_arg(run.prompt)}" for run in graph.runs]
    lines += [f"%{i} = {_node(graph, node)}" for i, node in enumerate(graph.nodes)]
    return "\n".join(lines) + "\n"


def _node(graph: Graph, node: Node) -> str:
    return f"{node.op}({', '.join(_parts(graph, node))})"


def _parts(graph: Graph, node: Node) -> Iterator[str]:
    if node.run is not None:
        yield graph.runs[node.run].name
    if node.site is not None:
        yield node.site + ("" if node.index is None else f"[{', '.join(map(_arg, node.index))}]")
    if node.step is not None:
        yield f"step={_arg(node.step)}"
    if node.name is not None:
        yield node.name
    yield from map(_arg, node.args)
    yield from (f"{key}={_arg(arg)}" for key, arg in node.kwargs)
    if node.dims is not None:
        yield f"dims=[{', '.join(node.dims)}]"


def _arg(arg: Arg) -> str:
    match arg:
        case NodeRef():
            return f"%{arg.node}"
        case ParamRef():
            return f"{{{arg.param}}}"
        case TensorRef():
            return f"tensor:{arg.digest[:12]}"
        case EllipsisType():
            return "..."
        case SliceArg():
            start, stop, step = ("" if part is None else _arg(part) for part in (arg.start, arg.stop, arg.step))
            return f"{start}:{stop}" + (f":{step}" if step else "")
        case tuple():
            items = [_arg(item) for item in arg[:_LONGEST_LIST]]
            more = [f"… {len(arg):,} items"] if len(arg) > _LONGEST_LIST else []
            return f"[{', '.join(items + more)}]"
    return shown(arg)
