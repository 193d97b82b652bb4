"""Graphs for the tests of this folder: the golden files, broken graphs by rule, and random valid ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, TensorRef, map_node
from ndif_batch.graph.rules import Rule

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_FILES = sorted(path for path in GOLDEN.glob("*.json") if path.name != "digests.json")

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties: a busy machine is no failure."""

Change = Callable[[dict[str, Any]], object]


def patching() -> dict[str, Any]:
    """The activation patching graph as JSON data, fresh to be changed."""
    data: dict[str, Any] = json.loads((GOLDEN / "activation_patching.json").read_text())
    return copy.deepcopy(data)


def change(node: int, **fields: Any) -> Change:
    """Sets fields of one node; ``None`` removes one."""

    def apply(data: dict[str, Any]) -> None:
        for key, value in fields.items():
            data["nodes"][node].pop(key, None)
            if value is not None:
                data["nodes"][node][key] = value

    return apply


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


STRUCTURE: list[tuple[str, Rule, int | None, Change]] = [
    ("unknown version", Rule.VERSION, None, lambda g: g.update(version=2)),
    ("version is true", Rule.WRONG_TYPE, None, lambda g: g.update(version=True)),
    ("no version", Rule.MISSING_KEY, None, lambda g: g.pop("version")),
    ("no nodes", Rule.MISSING_KEY, None, lambda g: g.pop("nodes")),
    ("unknown key of the graph", Rule.UNKNOWN_KEY, None, lambda g: g.update(node=[])),
    ("unknown key of a run", Rule.UNKNOWN_KEY, None, lambda g: g["runs"][0].update(text="a")),
    ("unknown key of a node", Rule.UNKNOWN_KEY, 3, change(3, sites="lm_head.output")),
    ("unknown tag", Rule.UNKNOWN_KEY, 4, change(4, args=[{"nod": 3}, 0])),
    ("nodes is an object", Rule.WRONG_TYPE, None, lambda g: g.update(nodes={})),
    ("a node is a number", Rule.WRONG_TYPE, 9, lambda g: g["nodes"].append(3)),
    ("run is a string", Rule.WRONG_TYPE, 0, change(0, run="clean")),
    ("run is a bool", Rule.WRONG_TYPE, 0, change(0, run=True)),
    ("node is a float", Rule.WRONG_TYPE, 4, change(4, args=[{"node": 3.5}, 0])),
    ("two tags", Rule.WRONG_TYPE, 4, change(4, args=[{"node": 3, "param": "x"}, 0])),
    ("a slice of two", Rule.WRONG_TYPE, 4, change(4, args=[{"node": 3}, {"slice": [0, 1]}])),
    ("a float of a finite word", Rule.WRONG_TYPE, 4, change(4, args=[{"node": 3}, {"float": "1"}])),
    ("a string that needs no tag", Rule.WRONG_TYPE, 4, change(4, args=[{"node": 3}, {"string": "a"}])),
    ("prompt is a number", Rule.WRONG_TYPE, None, lambda g: g["runs"][0].update(prompt=3)),
    ("token is a string", Rule.WRONG_TYPE, None, lambda g: g["runs"][0].update(prompt=["a"])),
    ("a parameter of no type", Rule.PARAMETER_TYPE, None, lambda g: g["params"].update(layer="integer")),
]
"""Broken in a way that a JSON Schema can tell."""

WORDS: list[tuple[str, Rule, int | None, Change]] = [
    ("a parameter's name", Rule.PARAMETER_NAME, None, lambda g: g["params"].update({"a b": "int"})),
    ("a run's name", Rule.RUN_NAME, None, lambda g: g["runs"][0].update(name="a/b")),
    ("no tokens", Rule.PROMPT, None, lambda g: g["runs"][0].update(prompt=[])),
    ("a negative token", Rule.PROMPT, None, lambda g: g["runs"][0].update(prompt=[-1])),
    ("unknown operation", Rule.UNKNOWN_OPERATION, 7, change(7, op="subtract")),
    ("attribute as operation", Rule.UNKNOWN_OPERATION, 7, change(7, op="__getattribute__")),
    ("a read without run", Rule.MISSING_FIELD, 0, change(0, run=None)),
    ("a save without name", Rule.MISSING_FIELD, 8, change(8, name=None)),
    ("a site on arithmetic", Rule.STRAY_FIELD, 7, change(7, site="lm_head.output")),
    ("an index on a read", Rule.STRAY_FIELD, 0, change(0, index=[0])),
    ("an empty index", Rule.INDEX, 2, change(2, index=[])),
    ("a site without output", Rule.SITE, 3, change(3, site="lm_head")),
    ("an attribute as site", Rule.SITE, 3, change(3, site="model.__class__.output")),
    ("an attribute of a parameter", Rule.SITE, 3, change(3, site="model.{layer.real}.output")),
    ("an item of a parameter", Rule.SITE, 3, change(3, site="model.{layer[0]}.output")),
    ("a conversion of a parameter", Rule.SITE, 3, change(3, site="model.{layer!r}.output")),
    ("a width of a parameter", Rule.SITE, 3, change(3, site="model.{layer:>999999999}.output")),
    ("a brace alone", Rule.SITE, 3, change(3, site="model.{{layer}}.output")),
    ("white space in a site", Rule.SITE, 3, change(3, site="model layers.output")),
    ("a name with a folder", Rule.SAVE_NAME, 8, change(8, name="../x")),
    ("the archive's own name", Rule.SAVE_NAME, 8, change(8, name="task_status")),
    ("the archive's own file", Rule.SAVE_NAME, 8, change(8, name="zarr.json")),
    ("a dimension's name", Rule.DIMS, 8, change(8, dims=["a b"])),
    ("a dimension twice", Rule.DIMS, 8, change(8, dims=["a", "a"])),
    ("a tensor's digest", Rule.TENSOR, 7, change(7, args=[{"node": 5}, {"tensor": "../x"}])),
    ("nothing saved", Rule.NOTHING_SAVED, None, lambda g: g["nodes"].pop()),
]
"""Broken words and fields: a JSON Schema can tell these too."""

MEANING: list[tuple[str, Rule, int | None, Change]] = [
    ("a step of a run that generates nothing", Rule.STEPS, 0, change(0, step=1)),
    ("a run that is not there", Rule.RUN_RANGE, 3, change(3, run=2)),
    ("two runs of one name", Rule.DUPLICATE_RUN, None, lambda g: g["runs"][1].update(name="clean")),
    ("a prompt that is no prompt", Rule.PARAMETER_TYPE, None, lambda g: g["runs"][0].update(prompt={"param": "layer"})),
    ("a prompt of no parameter", Rule.UNKNOWN_PARAMETER, None, lambda g: g["runs"][0].update(prompt={"param": "a"})),
    ("a prompt as number", Rule.PARAMETER_TYPE, 7, change(7, args=[{"node": 5}, {"param": "clean"}])),
    ("a prompt in a site", Rule.PARAMETER_TYPE, 3, change(3, site="model.{clean}.output")),
    ("a prompt in an index", Rule.PARAMETER_TYPE, 2, change(2, index=[{"param": "clean"}])),
    ("an int as dtype", Rule.PARAMETER_TYPE, 7, change(7, op="cast", args=[{"node": 5}, {"param": "layer"}])),
    ("no such parameter", Rule.UNKNOWN_PARAMETER, 1, change(1, args=[{"node": 0}, {"param": "positon"}])),
    ("no such parameter in a site", Rule.UNKNOWN_PARAMETER, 3, change(3, site="model.{lyer}.output")),
    ("itself", Rule.NODE_ORDER, 7, change(7, args=[{"node": 7}, 1])),
    ("a node before the first", Rule.NODE_ORDER, 4, change(4, args=[{"node": -1}, 0])),
    ("a run before the first", Rule.RUN_RANGE, 3, change(3, run=-1)),
    ("a later node", Rule.NODE_ORDER, 4, change(4, args=[{"node": 7}, 0])),
    ("a write as value", Rule.NO_VALUE, 4, change(4, args=[{"node": 2}, 0])),
    ("too few arguments", Rule.ARGUMENTS, 7, change(7, args=[{"node": 5}])),
    ("too many arguments", Rule.ARGUMENTS, 3, change(3, args=[1])),
    ("an unknown keyword", Rule.ARGUMENTS, 7, change(7, op="sum", args=[{"node": 5}], kwargs={"axis": 0})),
    ("a string as number", Rule.ARGUMENTS, 7, change(7, args=[{"node": 5}, "1"])),
    ("an unknown dtype", Rule.ARGUMENTS, 7, change(7, op="cast", args=[{"node": 5}, "float33"])),
    ("two ellipses", Rule.INDEX, 2, change(2, index=["...", "..."])),
    ("a string in an index", Rule.INDEX, 2, change(2, index=["a"])),
    ("a save twice", Rule.DUPLICATE_SAVE, 9, lambda g: g["nodes"].append(g["nodes"][-1])),
    ("a NUL in a prompt", Rule.TEXT, None, lambda g: g["runs"][0].update(prompt="a\0")),
    ("half a surrogate pair", Rule.TEXT, 7, change(7, op="einsum", args=["\ud800", {"node": 5}])),
    ("a nested list", Rule.LIMIT, 7, change(7, args=[{"node": 5}, deep(9)])),
    ("an integer of 65 bits", Rule.NUMBER, 7, change(7, args=[{"node": 5}, 2**64])),
    (
        "a gradient of no read",
        Rule.GRAD,
        8,
        change(8, op="grad", name=None, dims=None, args=[{"node": 7}, {"node": 7}]),
    ),
]
"""Broken in a way that only ``validate`` can tell."""

BROKEN = STRUCTURE + WORDS + MEANING

_SITES = st.sampled_from(
    ["model.layers.{layer}.output", "model.layers.3.output", "model.layers.3.input", "lm_head.output"]
)
_PARAMS = {
    "text": ParamType.PROMPT,
    "layer": ParamType.INT,
    "scale": ParamType.FLOAT,
    "on": ParamType.BOOL,
    "kind": ParamType.STR,
    "vector": ParamType.TENSOR,
}
_RUNS = (Run("a", ParamRef("text")), Run("b", "Ünder the \U0001f333"), Run("c", (5, 0, 7)))
_LEAST, _MOST = -(2**63), 2**63 - 1
_NUMBER = st.integers(_LEAST, _MOST) | st.floats() | st.sampled_from([0.0, -0.0, 1, 1.0, True, _LEAST, _MOST])
_INT = st.integers(-9, 9) | st.just(ParamRef("layer"))
_TENSOR: st.SearchStrategy[Arg] = st.sampled_from([*map(NodeRef, range(16)), ParamRef("vector"), TensorRef("ab" * 32)])
_OPERAND = _TENSOR | _NUMBER | st.sampled_from([ParamRef("scale"), ParamRef("layer"), ParamRef("on")])
_PART = st.none() | _INT
_ITEM = st.none() | _INT | st.builds(SliceArg, _PART, _PART, _PART) | st.tuples(_INT, _INT) | _TENSOR
_INDEX = st.tuples(_ITEM) | st.tuples(_ITEM, _ITEM) | st.tuples(st.just(...), _ITEM)
_KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "dim": st.tuples(_INT) | st.tuples(_INT, _INT),
        "dtype": st.sampled_from(["float32", ParamRef("kind")]),
        "keepdim": st.booleans(),
    },
)
_NODE = st.one_of(
    st.builds(lambda op, x, y: Node(op, (x, y)), st.sampled_from(["sub", "mul", "maximum"]), _TENSOR, _TENSOR),
    st.builds(lambda x, y: Node("add", (x, y)), _TENSOR, _OPERAND),
    st.builds(lambda x, index: Node("getitem", (x, index)), _TENSOR, _INDEX),
    st.builds(lambda x, k: Node("sum", (x,), tuple(sorted(k.items()))), _TENSOR, _KEYWORDS),
    st.builds(lambda x, y, dim: Node("cat", ((x, y), dim)), _TENSOR, _TENSOR, _INT),
    st.builds(lambda text, x: Node("einsum", (text, x)), st.sampled_from(["...", "ij->i"]), _TENSOR),
    st.builds(lambda n: Node("randn", (n,)), st.integers(1, 9)),
    st.builds(lambda run, site: Node("read", run=run, site=site), st.integers(0, 2), _SITES),
    st.builds(
        lambda x, run, site, index: Node("write", (x,), run=run, site=site, index=index),
        _TENSOR,
        st.integers(0, 2),
        _SITES,
        st.none() | _INDEX,
    ),
    st.builds(lambda x: Node("print", (x,), name="seen"), _TENSOR),
)
_SAVE = st.builds(lambda x, dims: Node("save", (x,), dims=dims), _TENSOR, st.sampled_from([None, (), ("x",)]))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs that ``validate`` accepts, with every form of argument."""
    nodes = [Node("read", run=0, site="model.layers.0.output")]
    valued = [0]
    for drawn in draw(st.lists(_NODE, max_size=12)):
        if drawn.op not in ("write", "print"):
            valued.append(len(nodes))
        nodes.append(_pointed_at(drawn, [i for i in valued if i < len(nodes)]))
    for k, drawn in enumerate(draw(st.lists(_SAVE, min_size=1, max_size=3))):
        nodes.append(replace(_pointed_at(drawn, valued), name=f"s{k}"))
    return Graph(_PARAMS, _RUNS, tuple(nodes))


def _pointed_at(node: Node, valued: list[int]) -> Node:
    """``node`` with its references turned to nodes that have a value."""
    return map_node(node, lambda arg: NodeRef(valued[arg.node % len(valued)]) if isinstance(arg, NodeRef) else arg)
