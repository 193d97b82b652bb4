"""Checks that a graph means something, as far as this can be told without the model; errors name node and rule."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ndif_batch.errors import GraphError
from ndif_batch.graph.limits import DEFAULT, Limits
from ndif_batch.graph.nodes import Graph, Inputs, NodeRef, ParamRef, ParamType, Run, TensorRef, leaves
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.serialize import canonical
from ndif_batch.graph.syntax import DIGEST, PARAM_NAME, RESERVED_SAVES, RUN_NAME, SAVE_NAME, is_storable, shown
from ndif_batch.graph.validate_node import NodeCheck, check_known


def validate(graph: Graph, limits: Limits = DEFAULT) -> None:
    """Raises ``GraphError`` for the first rule that the graph breaks: parameters, runs, nodes in order, saves, size."""
    for name in ("params", "runs", "nodes"):
        limits.check(name, len(getattr(graph, name)))
    for name in graph.params:
        if not re.fullmatch(PARAM_NAME, name):
            raise GraphError(
                f"{shown(name)} cannot name a parameter", rule=Rule.PARAMETER_NAME, hint=f"a name is {PARAM_NAME}"
            )
    _check_runs(graph, limits)
    for i, node in enumerate(graph.nodes):
        NodeCheck(graph, i, node, limits).check()
    _check_saves(graph, limits)
    limits.check("constants", len(constants(graph)))
    limits.check("bytes", len(canonical(graph)))


def constants(graph: Graph) -> set[str]:
    """Digests of the constant tensors that stand in the graph; those that a task binds to a parameter do not."""
    prompts = {digest for run in graph.runs if isinstance(run.prompt, Inputs) for digest in run.prompt.digests.values()}
    return prompts | {
        leaf.digest
        for node in graph.nodes
        for arg in node.arguments()
        for leaf in leaves(arg)
        if isinstance(leaf, TensorRef)
    }


def check_constants(graph: Graph, sizes: Mapping[str, int], limits: Limits = DEFAULT) -> None:
    """Raises ``GraphError`` unless ``sizes`` (digest → bytes) has each constant of ``graph`` and is small enough."""
    missing = sorted(constants(graph).difference(sizes))
    if missing:
        raise GraphError(f"the content of constant tensor {missing[0]} is missing", rule=Rule.TENSOR)
    limits.check("constant_bytes", sum(sizes.values()))


def _check_runs(graph: Graph, limits: Limits) -> None:
    seen: set[str] = set()
    for run in graph.runs:
        if not re.fullmatch(RUN_NAME, run.name):
            raise GraphError(f"{shown(run.name)} cannot name a run", rule=Rule.RUN_NAME, hint=f"a name is {RUN_NAME}")
        if run.name in seen:
            raise GraphError(f"two runs are called {run.name!r}", rule=Rule.DUPLICATE_RUN)
        seen.add(run.name)
        _check_prompt(run, graph.params, limits)


def _check_prompt(run: Run, params: Mapping[str, ParamType], limits: Limits) -> None:
    where = f"run {run.name!r}"
    if isinstance(run.prompt, ParamRef):
        kind = check_known(run.prompt.param, params)
        if kind is not ParamType.PROMPT:
            raise GraphError(
                f"{where} needs a prompt, parameter {run.prompt.param!r} is of type {kind}", rule=Rule.PARAMETER_TYPE
            )
    elif isinstance(run.prompt, str):
        limits.check("prompt", len(run.prompt), where=where)
        if not is_storable(run.prompt):
            raise GraphError(f"{where}: the prompt holds a character that is not valid text", rule=Rule.TEXT)
    elif isinstance(run.prompt, NodeRef):
        raise GraphError(f"{where}: a node is no prompt", rule=Rule.PROMPT)
    elif isinstance(run.prompt, Inputs):
        check_inputs(run.prompt, where, limits)
    else:
        limits.check("tokens", len(run.prompt), where=where)
        if not run.prompt:
            raise GraphError(f"{where}: the prompt has no tokens", rule=Rule.PROMPT)
        wrong = next((token for token in run.prompt if type(token) is not int or not 0 <= token < 2**31), None)
        if wrong is not None:
            raise GraphError(f"{where}: {shown(wrong)} is no token id", rule=Rule.PROMPT)


def check_inputs(inputs: Inputs, where: str, limits: Limits = DEFAULT) -> None:
    """Raises ``GraphError`` unless the tensors of a prompt have names, and digests that could be theirs."""
    limits.check("inputs", len(inputs.tensors), where=where)
    if not inputs.tensors:
        raise GraphError(f"{where}: the prompt has no tensors", rule=Rule.PROMPT)
    for name, tensor in inputs.tensors:
        if not re.fullmatch(PARAM_NAME, name):
            raise GraphError(
                f"{where}: {shown(name)} cannot name an input", rule=Rule.PROMPT, hint=f"a name is {PARAM_NAME}"
            )
        if not re.fullmatch(DIGEST, tensor.digest):
            raise GraphError(f"{where}: {shown(tensor.digest)} is no digest of a tensor", rule=Rule.TENSOR)


def _check_saves(graph: Graph, limits: Limits) -> None:
    seen: dict[str, int] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "save" and node.name is not None:
            _check_save_name(node.name, i)
            if node.name in seen:
                raise GraphError(
                    f"node {seen[node.name]} saves {node.name!r} already", rule=Rule.DUPLICATE_SAVE, node=i
                )
            seen[node.name] = i
    limits.check("saves", len(seen))
    if not seen:
        raise GraphError("nothing is saved", rule=Rule.NOTHING_SAVED, hint="save a value under a name")


def _check_save_name(name: str, node: int) -> None:
    if not re.fullmatch(SAVE_NAME, name):
        raise GraphError(
            f"{shown(name)} cannot name a saved array", rule=Rule.SAVE_NAME, node=node, hint=f"a name is {SAVE_NAME}"
        )
    if name in RESERVED_SAVES:
        raise GraphError(f"{name!r} is the archive's own name", rule=Rule.SAVE_NAME, node=node)
