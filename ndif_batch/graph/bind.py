"""Puts a task's bindings into a graph: the result has no parameters, its sites and prompts are concrete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from string import Formatter

from ndif_batch.errors import GraphError, nearest
from ndif_batch.graph.nodes import Arg, Graph, Inputs, Node, ParamRef, Prompt, Run, Value, map_node


def site_params(site: str) -> tuple[str, ...]:
    """Names of the parameters that stand in a site's module path."""
    if "{" not in site:
        return ()
    return tuple(field for _, field, _, _ in Formatter().parse(site) if field is not None)


def require_bound(graph: Graph, bindings: Mapping[str, Value]) -> None:
    """``GraphError`` unless the bindings name the graph's parameters and nothing else."""
    for name in graph.params:
        if name not in bindings:
            raise GraphError(f"parameter {name!r} has no value", rule="unbound-parameter")
    for name in bindings:
        if name not in graph.params:
            raise GraphError(
                f"the graph has no parameter {name!r}", rule="unknown-parameter", hint=nearest(name, graph.params)
            )


def bind(graph: Graph, bindings: Mapping[str, Value]) -> Graph:
    """``graph`` with every parameter replaced by its bound value; node ids stay the same."""
    require_bound(graph, bindings)

    def leaf(arg: Arg) -> Arg:
        return bindings[arg.param] if isinstance(arg, ParamRef) else arg

    def bound(node: Node) -> Node:
        site = node.site
        if site is not None and "{" in site:
            site = site.format_map({name: bindings[name] for name in site_params(site)})
        return replace(map_node(node, leaf), site=site)

    runs = tuple(Run(run.name, prompt_of(run, bindings)) for run in graph.runs)
    return Graph(params={}, runs=runs, nodes=tuple(bound(node) for node in graph.nodes), version=graph.version)


def prompt_of(run: Run, bindings: Mapping[str, Value]) -> str | Prompt:
    """The prompt of a run, as text, token ids or tensors."""
    value = bindings[run.prompt.param] if isinstance(run.prompt, ParamRef) else run.prompt
    if isinstance(value, str | tuple | Inputs):
        return value
    raise GraphError(f"run {run.name!r} needs text, token ids or tensors, got {value!r}", rule="prompt")
