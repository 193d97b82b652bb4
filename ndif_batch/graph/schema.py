"""The published JSON Schema of graphs; ``python -m ndif_batch.graph.schema`` prints configs/schema/graph.v1.json."""

from __future__ import annotations

import json
import sys
from typing import Any, TypeAlias

from ndif_batch.graph.nodes import VERSION, ParamType
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.syntax import DIGEST, DIM_NAME, PARAM_NAME, PATH, RESERVED_SAVES, RUN_NAME, SAVE_NAME, SITE

Schema: TypeAlias = dict[str, Any]

_ID = {"type": "integer", "minimum": 0}
_ARG = {"$ref": "#/$defs/argument"}
_ARGS = {"type": "array", "items": _ARG}


def graph_schema() -> Schema:
    """JSON Schema 2020-12 of a graph's structure: every valid graph fits it, though not every graph that fits is valid.

    It leaves to ``validate`` what a schema cannot say (argument types, references, unique names) and the limits,
    which are settings.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ndif-batch:graph:v{VERSION}",
        "title": "Intervention graph",
        "description": "Runs of a model, and nodes that read, compute, write and save; a node's id is its place.",
        **_object(
            {
                "version": {"const": VERSION},
                "params": {
                    "type": "object",
                    "propertyNames": _text(PARAM_NAME),
                    "additionalProperties": {"enum": [str(kind) for kind in ParamType]},
                },
                "runs": {"type": "array", "items": {"$ref": "#/$defs/run"}},
                "nodes": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/node"},
                    "contains": {"properties": {"op": {"const": "save"}}},
                },
            }
        ),
        "$defs": {"run": _run(), "node": {"oneOf": _nodes()}, "argument": _argument()},
    }


def schema_text() -> str:
    """The schema as the published file holds it."""
    return json.dumps(graph_schema(), indent=2) + "\n"


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


def _run() -> Schema:
    tokens = {"type": "array", "items": _ID, "minItems": 1}
    named = {
        "type": "object",
        "propertyNames": _text(PARAM_NAME),
        "additionalProperties": _object({"tensor": _text(DIGEST)}),
        "minProperties": 1,
    }
    inputs = _object({"inputs": named})
    prompt = {"anyOf": [{"type": "string"}, tokens, _object({"param": _text(PARAM_NAME)}), inputs]}
    return _object({"name": _text(RUN_NAME), "prompt": prompt})


def _nodes() -> list[Schema]:
    """One alternative for each set of fields, with all the operations that have it."""
    alike: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    for name, operation in sorted(OPERATIONS.items()):
        alike.setdefault((operation.fields, name in ("read", "write")), []).append(name)
    return [_node(operations, fields, touches) for (fields, touches), operations in sorted(alike.items())]


def _node(operations: list[str], fields: tuple[str, ...], touches: bool) -> Schema:
    kinds: Schema = {
        "run": _ID,
        "site": _text(SITE if touches else PATH),
        "index": _ARGS | {"minItems": 1},
        "name": _text(SAVE_NAME) | {"not": {"enum": list(RESERVED_SAVES)}},
        "dims": {"type": "array", "items": _text(DIM_NAME), "uniqueItems": True},
    }
    kwargs = {"type": "object", "additionalProperties": _ARG}
    whole: Schema = {"type": "integer"}
    bounds = {"type": "array", "items": {"anyOf": [whole, {"type": "null"}]}, "minItems": 3, "maxItems": 3}
    kinds["step"] = {"anyOf": [whole, _object({"slice": bounds})]}
    return _object(
        {"op": {"enum": operations}} | {field: kinds[field] for field in fields if not field.endswith("?")},
        {"args": _ARGS, "kwargs": kwargs} | {field[:-1]: kinds[field[:-1]] for field in fields if field.endswith("?")},
    )


def _argument() -> Schema:
    return {
        "description": 'A plain value, a list, or a tagged object; the string "..." is Python\'s Ellipsis.',
        "anyOf": [
            {"type": ["null", "boolean", "number", "string"]},
            _ARGS,
            _object({"node": _ID}),
            _object({"param": _text(PARAM_NAME)}),
            _object({"tensor": _text(DIGEST)}),
            _object({"slice": _ARGS | {"minItems": 3, "maxItems": 3}}),
            _object({"float": {"enum": ["nan", "inf", "-inf"]}}),
            _object({"string": {"const": "..."}}),
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(schema_text())
