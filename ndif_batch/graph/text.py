"""A graph as text for people: a line a run, a line a node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from types import EllipsisType

from ndif_batch.graph.nodes import Arg, Graph, Inputs, Node, NodeRef, ParamRef, SliceArg, TensorRef
from ndif_batch.graph.syntax import shown

_LONGEST_LIST = 16
_NUMBER = re.compile(r"%[0-9]+")


def to_text(graph: Graph) -> str:
    """A valid graph's parameters, runs and nodes, such as ``%3 = getitem(%0, [..., {position}])``; no line is long."""
    lines = [f"param {{{name}}}: {kind}" for name, kind in graph.params.items()]
    lines += [f"run {run.name} = {_arg(run.prompt)}" for run in graph.runs]
    lines += [f"%{i} = {_node(graph, node)}" for i, node in enumerate(graph.nodes)]
    return "\n".join(lines) + "\n"


def differences(one: Graph, other: Graph) -> Iterator[str]:
    """The lines of ``other``, those that ``one`` has not after ``+ ``; those of ``one`` alone after ``- ``.

    A node is the same if it does the same to the same nodes, whatever their numbers.
    """
    before, after = to_text(one).splitlines(), to_text(other).splitlines()
    shapes = [[_NUMBER.sub("%", line) for line in lines] for lines in (before, after)]
    matcher = SequenceMatcher(None, shapes[0], shapes[1], autojunk=False)
    same: dict[str, str] = {}
    for kind, start, stop, first, last in matcher.get_opcodes():
        if kind != "equal":
            yield from (f"- {line}" for line in before[start:stop])
            yield from (f"+ {line}" for line in after[first:last])
            continue
        for old, new in zip(before[start:stop], after[first:last], strict=True):
            numbers = [_NUMBER.findall(line) for line in (old, new)]
            made = int(old.startswith("%"))
            if [same.get(number) for number in numbers[0][made:]] == numbers[1][made:]:
                same |= dict(zip(numbers[0][:made], numbers[1][:made], strict=True))
                yield f"  {new}"
            else:
                yield f"- {old}"
                yield f"+ {new}"


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
        case Inputs():
            return f"{{{', '.join(f'{name}: {_arg(tensor)}' for name, tensor in arg.tensors)}}}"
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
