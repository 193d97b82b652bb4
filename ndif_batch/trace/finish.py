"""The end of a recording: values that nothing takes are left out, and the rest must be a valid graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ndif_batch.errors import GraphError, TraceError
from ndif_batch.graph.bind import site_params
from ndif_batch.graph.edit import edited
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, inputs, leaves, map_node
from ndif_batch.graph.operations import OPERATIONS, Kind
from ndif_batch.graph.validate import validate
from ndif_batch.trace.place import user_place

if TYPE_CHECKING:
    from ndif_batch.trace.recorder import Recorder


def finished(recorder: Recorder, edits: Sequence[Graph] = ()) -> tuple[Graph, tuple[str, ...]]:
    """The recorded graph, after some ``edits``, and the user's line of each of its nodes.

    ``TraceError`` for a parameter that nothing uses, and for what :func:`~ndif_batch.graph.validate.validate` finds.
    """
    graph, places = drawn(recorder)
    graph = replace(graph, params=_used(recorder, graph))
    for edit in reversed(edits):
        graph, origin = edited(graph, edit)
        places = tuple(["an edit of the model" if i is None else places[i] for i in origin])
    try:
        validate(graph)
    except GraphError as error:
        place = user_place() if error.node is None else places[error.node]
        raise TraceError(f"{place}: {error.message}", hint=error.hint) from None
    return graph, places


def drawn(recorder: Recorder) -> tuple[Graph, tuple[str, ...]]:
    """What is recorded so far, as a graph without parameters that is not checked."""
    kept = _kept(recorder.nodes)
    new_id = {old: new for new, old in enumerate(kept)}

    def leaf(arg: Arg) -> Arg:
        return NodeRef(new_id[arg.node]) if isinstance(arg, NodeRef) else arg

    nodes = tuple(map_node(recorder.nodes[i], leaf) for i in kept)
    places = tuple(recorder.places[i] for i in kept)
    return Graph(params={}, runs=tuple(recorder.runs), nodes=nodes), places


def _kept(nodes: list[Node]) -> list[int]:
    """Ids of the nodes that do something or whose value is taken by one that does.

    A run of which nobody needs more than the prompt's pass generates nothing.
    """
    kept: set[int] = set()
    for i in reversed(range(len(nodes))):
        if i in kept or _acts(nodes[i]):
            kept.add(i)
            kept.update(inputs(nodes[i]))
    going_on = {nodes[i].run for i in kept if nodes[i].op == "tokens" or nodes[i].step is not None}
    return sorted(i for i in kept if nodes[i].op != "steps" or nodes[i].run in going_on)


def _acts(node: Node) -> bool:
    return node.op == "write" or OPERATIONS[node.op].kind in (Kind.CONTROL, Kind.OUT)


def _used(recorder: Recorder, graph: Graph) -> dict[str, ParamType]:
    used = {run.prompt.param for run in graph.runs if isinstance(run.prompt, ParamRef)}
    for node in graph.nodes:
        used.update(site_params(node.site or ""))
        used.update(leaf.param for arg in node.arguments() for leaf in leaves(arg) if isinstance(leaf, ParamRef))
    types = recorder.parameters.types()
    for name in types:
        if name not in used:
            raise TraceError(
                f"{recorder.parameters.place(name)}: nothing that is saved or written uses parameter {name!r}",
                hint="save what it changes, or remove it",
            )
    return types
