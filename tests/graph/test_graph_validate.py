"""Validation names the node and the rule, accepts what is right, and holds every limit."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import ndif_batch.graph
from ndif_batch.errors import GraphError, SettingsError
from ndif_batch.graph.limits import DEFAULT, Limits
from ndif_batch.graph.nodes import Graph, Node, NodeRef
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.serialize import canonical, graph_from_json, loads
from ndif_batch.graph.validate import check_constants, constants, validate
from tests.graph.graph_cases import BROKEN, GOLDEN_FILES, MEANING, UNHURRIED, WORDS, Change, change, graphs, patching

CASES = WORDS + MEANING


def refusal(data: dict[str, Any], limits: Limits = DEFAULT) -> GraphError:
    with pytest.raises(GraphError) as caught:
        validate(graph_from_json(data), limits)
    return caught.value


@UNHURRIED
@given(graphs())
def test_every_valid_graph_is_accepted(graph: Graph) -> None:
    validate(graph)


@pytest.mark.parametrize(("what", "rule", "node", "change"), CASES, ids=[case[0] for case in CASES])
def test_a_broken_rule_is_named_with_its_node(what: str, rule: Rule, node: int | None, change: Change) -> None:
    data = patching()
    change(data)
    error = refusal(data)
    assert (error.rule, error.node) == (rule, node)
    assert error.message.endswith(f"[{rule}]")
    assert node is None or error.message.startswith(f"node {node}: ")


def test_every_rule_is_broken_by_some_test() -> None:
    elsewhere = {Rule.JSON, Rule.DUPLICATE_KEY, Rule.UNBOUND_PARAMETER}
    assert {rule for _, rule, _, _ in BROKEN} | elsewhere == set(Rule)


def test_every_rule_that_the_room_raises_is_a_known_one() -> None:
    source = "".join(path.read_text() for path in Path(ndif_batch.graph.__path__[0]).glob("*.py"))
    assert {ast.literal_eval(word) for word in re.findall(r"rule=(\"[^\"]*\")", source)} <= set(Rule)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (change(7, op="subb"), "did you mean 'sub'?"),
        (change(1, args=[{"node": 0}, {"param": "positon"}]), "did you mean 'position'?"),
        (change(7, op="sum", args=[{"node": 5}], kwargs={"keepdims": True}), "did you mean 'keepdim'?"),
    ],
    ids=["operation", "parameter", "keyword"],
)
def test_a_wrong_word_is_answered_with_the_nearest(wrong: Change, hint: str) -> None:
    data = patching()
    wrong(data)
    assert hint in str(refusal(data))


def test_a_message_stays_short_whatever_the_argument() -> None:
    data = patching()
    data["nodes"][7] = {"op": "cat", "args": [[["x" * 1000] * 100]]}
    assert len(str(refusal(data))) < 400


@pytest.mark.parametrize(
    ("limit", "allowed", "node"),
    [
        ("nodes", 9, None),
        ("runs", 2, None),
        ("params", 6, None),
        ("saves", 2, None),
        ("constants", 2, None),
        ("tokens", 3, None),
        ("prompt", 21, None),
        ("string", 19, 5),
        ("arguments", 3, 4),
        ("list", 4, 3),
        ("index", 2, 6),
        ("dims", 2, 8),
        ("steps", 7, 0),
        ("depth", 2, 3),
    ],
)
def test_each_limit_allows_its_number_and_no_more(limit: str, allowed: int, node: int | None) -> None:
    data = {
        "version": 1,
        "params": dict.fromkeys("abcdef", "int"),
        "runs": [{"name": "a", "prompt": [1, 2, 3]}, {"name": "b", "prompt": "p" * 21}],
        "nodes": [
            {"op": "steps", "run": 0, "args": [7]},
            {"op": "read", "run": 0, "site": "h.0.output"},
            {"op": "add", "args": [{"tensor": "0" * 64}, {"tensor": "1" * 64}]},
            {"op": "getitem", "args": [{"node": 1}, [[0, 1], 0, 0, 0]]},
            {"op": "sum", "args": [{"node": 1}, 0], "kwargs": {"keepdim": True}},
            {"op": "einsum", "args": ["a" * 16 + "->a", {"node": 1}]},
            {"op": "write", "run": 1, "site": "h.0.output", "index": [0, 1], "args": [{"tensor": "0" * 64}]},
            {"op": "save", "name": "x", "args": [{"node": 5}]},
            {"op": "save", "name": "y", "args": [{"node": 5}], "dims": ["d", "e"]},
        ],
    }
    validate(graph_from_json(data), replace(DEFAULT, **{limit: allowed}))
    error = refusal(data, replace(DEFAULT, **{limit: allowed - 1}))
    assert (error.rule, error.node) == (Rule.LIMIT, node)
    assert f"{limit} is {allowed}, the limit is {allowed - 1}" in error.message
    assert f"`{limit}` under [limits] in the settings file" in str(error)


def test_the_size_of_a_graph_is_that_of_its_canonical_bytes() -> None:
    graph = graph_from_json(patching())
    size = len(canonical(graph))
    validate(graph, Limits(bytes=size))
    with pytest.raises(GraphError, match="bytes is"):
        validate(graph, Limits(bytes=size - 1))


def test_limits_come_from_settings_by_name() -> None:
    assert Limits.of({"nodes": 7}) == Limits(nodes=7)
    with pytest.raises(SettingsError, match="did you mean 'nodes'"):
        Limits.of({"node": 7})


@pytest.mark.parametrize("arg", [object(), [1], {1}, b"a", 1j], ids=lambda arg: type(arg).__name__)
def test_a_value_that_json_cannot_hold_is_refused_before_it_is_written(arg: Any) -> None:
    graph = graph_from_json(patching())
    nodes = (*graph.nodes[:7], Node("sub", (NodeRef(5), arg)), *graph.nodes[8:])
    for check in (validate, canonical):
        with pytest.raises(GraphError) as caught:
            check(replace(graph, nodes=nodes))
        assert (caught.value.rule, caught.value.node) == (Rule.WRONG_TYPE, 7)


def test_a_keyword_given_twice_is_refused() -> None:
    graph = graph_from_json(patching())
    nodes = (*graph.nodes[:7], Node("sum", (NodeRef(5),), (("dim", 0), ("dim", 1))), *graph.nodes[8:])
    with pytest.raises(GraphError, match=r"node 7: .* twice"):
        validate(replace(graph, nodes=nodes))


def test_constants_must_come_with_the_graph_and_fit() -> None:
    (golden,) = (path for path in GOLDEN_FILES if path.stem == "steering")
    graph = loads(golden.read_bytes())
    (constant,) = constants(graph)
    check_constants(graph, {constant: 100}, Limits(constant_bytes=100))
    with pytest.raises(GraphError, match="missing"):
        check_constants(graph, {})
    with pytest.raises(GraphError, match="constant_bytes is 101, the limit is 100"):
        check_constants(graph, {constant: 101}, Limits(constant_bytes=100))


def test_constants_inside_lists_and_slices_are_found() -> None:
    data = patching()
    data["nodes"][7]["args"] = [{"node": 5}, {"node": 6}]
    data["nodes"].insert(7, {"op": "cat", "args": [[{"tensor": "a" * 64}, {"tensor": "b" * 64}]]})
    assert constants(graph_from_json(data)) == {"a" * 64, "b" * 64}


def test_a_large_graph_is_checked_within_its_limits() -> None:
    nodes = [Node("read", run=0, site="h.0.output")]
    nodes += [Node("neg", (NodeRef(i),)) for i in range(9_998)]
    nodes.append(Node("save", (NodeRef(9_998),), name="x"))
    graph = loads(json.dumps({"version": 1, "params": {}, "runs": [{"name": "a", "prompt": "a"}], "nodes": []}))
    validate(replace(graph, nodes=tuple(nodes)))
