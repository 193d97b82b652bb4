"""The JSON of a graph is lossless, one for one graph, and safe to read from strangers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.errors import GraphError
from ndif_batch.graph.limits import Limits
from ndif_batch.graph.nodes import Graph, Node, NodeRef, SliceArg
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.serialize import canonical, digest, dumps, graph_from_json, graph_to_json, loads
from ndif_batch.graph.validate import validate
from tests.graph.graph_cases import GOLDEN, GOLDEN_FILES, STRUCTURE, UNHURRIED, Change, graphs, patching

DIGESTS: dict[str, str] = json.loads((GOLDEN / "digests.json").read_text())

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_every_released_graph_stays_readable_with_its_identity(path: Path) -> None:
    graph = loads(path.read_bytes())
    validate(graph)
    assert digest(graph) == DIGESTS[path.stem]


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_a_file_is_written_as_it_was_read(path: Path) -> None:
    assert dumps(loads(path.read_bytes())) == path.read_bytes()


def test_every_golden_file_has_a_digest_and_no_other_does() -> None:
    assert sorted(DIGESTS) == [path.stem for path in GOLDEN_FILES]


@UNHURRIED
@given(graphs())
def test_a_graph_survives_json_in_each_of_its_forms(graph: Graph) -> None:
    for again in (
        loads(canonical(graph)),
        loads(dumps(graph)),
        loads(dumps(graph).decode()),
        graph_from_json(graph_to_json(graph)),
    ):
        assert repr(again.runs) == repr(graph.runs)
        assert repr(again.nodes) == repr(graph.nodes)
        assert again.params == graph.params
        assert canonical(again) == canonical(graph)


def test_canonical_bytes_are_the_documented_ones() -> None:
    nodes = (
        Node("getitem", (NodeRef(0), (..., SliceArg(None, 1), None, True, 1, 1.0, -0.0))),
        Node("einsum", ("...", float("-inf")), (("b", "ü"), ("a", ()))),
    )
    assert canonical(Graph({}, (), nodes)) == (
        b'{"nodes":[{"args":[{"node":0},["...",{"slice":[null,1,null]},null,true,1,1.0,-0.0]],"op":"getitem"},'
        b'{"args":[{"string":"..."},{"float":"-inf"}],"kwargs":{"a":[],"b":"\\u00fc"},"op":"einsum"}],'
        b'"params":{},"runs":[],"version":1}'
    )


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_identity_is_the_same_in_every_process(seed: str) -> None:
    code = (
        "import sys; from ndif_batch.graph.serialize import *;"
        "sys.stdout.buffer.write(b'\\n'.join(canonical(loads(open(p,'rb').read())) for p in sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, GOLDEN_FILES)],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    )
    assert done.stdout.split(b"\n") == [canonical(loads(path.read_bytes())) for path in GOLDEN_FILES]


def test_the_order_of_keys_is_no_part_of_the_identity() -> None:
    data = patching()
    shuffled = {key: data[key] for key in reversed(data)}
    shuffled["params"] = dict(reversed(data["params"].items()))
    shuffled["nodes"] = [dict(reversed(node.items())) for node in data["nodes"]]
    assert digest(graph_from_json(shuffled)) == digest(graph_from_json(data))


@pytest.mark.parametrize(("what", "rule", "node", "change"), STRUCTURE, ids=[case[0] for case in STRUCTURE])
def test_a_broken_structure_is_named_by_node_and_rule(what: str, rule: Rule, node: int | None, change: Change) -> None:
    data = patching()
    change(data)
    with pytest.raises(GraphError) as caught:
        graph_from_json(data)
    assert (caught.value.rule, caught.value.node) == (rule, node)


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    data = patching()
    data["nodes"][3]["sites"] = data["nodes"][3].pop("site")
    with pytest.raises(GraphError, match="did you mean 'site'"):
        graph_from_json(data)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b"", Rule.JSON),
        (b"{", Rule.JSON),
        (b"{} {}", Rule.JSON),
        (b"\xff\xfe{}", Rule.JSON),
        (b"\xef\xbb\xbf{}", Rule.JSON),
        ("{}".encode("utf-16"), Rule.JSON),
        (b"[" * 1_000_000, Rule.JSON),
        (b'{"a":' * 500_000, Rule.JSON),
        (b'{"version": 1, "version": 1}', Rule.DUPLICATE_KEY),
        (b'{"version": NaN}', Rule.NUMBER),
        (b'{"version": -Infinity}', Rule.NUMBER),
        (b'{"version": 1e999}', Rule.NUMBER),
        (b'{"version": ' + b"9" * 1_000_000 + b"}", Rule.NUMBER),
        (b'{"version": 9223372036854775808}', Rule.NUMBER),
        (b'{"version": 1.0}', Rule.WRONG_TYPE),
        (b"3", Rule.WRONG_TYPE),
        (b" " * (Limits().bytes + 1), Rule.LIMIT),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else value,
)
def test_hostile_text_ends_in_one_error(text: bytes, rule: Rule) -> None:
    with pytest.raises(GraphError) as caught:
        loads(text)
    assert caught.value.rule == rule
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "nest", [lambda inner: [inner], lambda inner: {"slice": [inner, 0, 0]}], ids=["lists", "slices"]
)
def test_deeply_nested_arguments_are_not_read(nest: Callable[[Any], Any]) -> None:
    value: Any = 0
    for _ in range(100):
        value = nest(value)
    data = patching()
    data["nodes"][7]["args"][1] = value
    with pytest.raises(GraphError, match="nested more than 64 deep") as caught:
        loads(json.dumps(data))
    assert caught.value.node == 7


@UNHURRIED
@given(_JSON)
def test_arbitrary_json_gives_a_graph_or_a_graph_error(data: Any) -> None:
    _accept_or_refuse(data)


@settings(UNHURRIED, max_examples=300)
@given(st.data())
def test_a_graph_with_any_part_replaced_gives_a_graph_or_a_graph_error(data: st.DataObject) -> None:
    graph = json.loads(data.draw(st.sampled_from(GOLDEN_FILES)).read_text())
    where: Any = graph
    while True:
        key = data.draw(st.sampled_from(list(where) if isinstance(where, dict) else range(len(where))))
        inner = where[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        where = inner
    where[key] = data.draw(_JSON)
    _accept_or_refuse(graph)


@UNHURRIED
@given(st.binary() | st.text())
def test_arbitrary_text_is_refused_with_a_graph_error(text: bytes | str) -> None:
    with pytest.raises(GraphError):
        loads(text)


def _accept_or_refuse(data: Any) -> None:
    refusal = _refusal(data)
    assert refusal is None or (refusal.rule in set(Rule) and len(str(refusal)) < 1000)


def _refusal(data: Any) -> GraphError | None:
    try:
        graph = graph_from_json(data)
        validate(graph)
    except GraphError as error:
        return error
    assert canonical(loads(canonical(graph))) == canonical(graph)
    return None
