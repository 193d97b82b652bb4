"""The published JSON Schema is the one that the code gives, takes every valid graph and refuses broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from ndif_batch.graph.nodes import Graph
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.rules import Rule
from ndif_batch.graph.schema import graph_schema, schema_text
from ndif_batch.graph.serialize import graph_to_json
from tests.graph.graph_cases import GOLDEN_FILES, STRUCTURE, UNHURRIED, WORDS, Change, graphs, patching

PUBLISHED = Path(__file__).parents[2] / "configs" / "schema" / "graph.v1.json"
VALIDATOR = Draft202012Validator(graph_schema())
BROKEN = STRUCTURE + WORDS


def test_the_published_file_is_the_schema_of_the_code() -> None:
    assert PUBLISHED.read_text() == schema_text(), (
        "run: python -m ndif_batch.graph.schema > configs/schema/graph.v1.json"
    )


def test_the_module_prints_the_published_file() -> None:
    command = [sys.executable, "-m", "ndif_batch.graph.schema"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == PUBLISHED.read_text()


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(json.loads(PUBLISHED.read_text()))


def test_every_operation_has_exactly_one_form_of_node() -> None:
    listed = [op for form in graph_schema()["$defs"]["node"]["oneOf"] for op in form["properties"]["op"]["enum"]]
    assert sorted(listed) == sorted(OPERATIONS)


@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.stem)
def test_every_golden_file_fits_the_schema(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text()))


@UNHURRIED
@given(graphs())
def test_every_valid_graph_fits_the_schema(graph: Graph) -> None:
    VALIDATOR.validate(graph_to_json(graph))


@pytest.mark.parametrize(("what", "rule", "node", "change"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_broken_graph_does_not_fit_the_schema(what: str, rule: Rule, node: int | None, change: Change) -> None:
    data = patching()
    change(data)
    assert not VALIDATOR.is_valid(data)
