"""Equal tasks of two spaces are found, and only those, however the axes are arranged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.graph.nodes import Graph, Node, ParamRef, ParamType, Run, TensorRef, Value
from ndif_batch.sweep.matching import NONE, Matching
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import make_task

NAMES = ("a", "b", "c")
PLAIN = Graph(dict.fromkeys(NAMES, ParamType.FLOAT), (Run("only", "the cat"),), (Node("save", (1,), name="x"),))
DRAWING = Graph(PLAIN.params, PLAIN.runs, (Node("rand", (2,)), *PLAIN.nodes))
VALUES: st.SearchStrategy[Value] = st.sampled_from([0, 1, 1.0, True, -0.0, 0.0, nan, "1", (1, 2), TensorRef("d")])


def space(axes: Mapping[str, Sequence[Any]], **constants: Value) -> Space:
    """Axes from ``{"a,b": rows}``: names that a comma joins are tied."""
    made = []
    for key, values in axes.items():
        names = key.split(",")
        rows = [value if len(names) > 1 else (value,) for value in values]
        made.append(Axis(key, {name: [row[i] for row in rows] for i, name in enumerate(names)}))
    return Space(tuple(made), constants)


def matches(new: Space, old: Space, graph: Graph = PLAIN) -> list[int]:
    found: list[int] = Matching(graph, new, old).old_tasks(range(new.size)).tolist()
    return found


@st.composite
def spaces(draw: st.DrawFn, *, seeds: bool) -> Space:
    """Every parameter on an axis of its own, tied to others on one, or constant."""
    names = draw(st.permutations(["a", "b", "c", "seed"] if seeds else list(NAMES)))
    groups: list[list[str]] = [[] for _ in range(3)]
    constants: dict[str, Value] = {}
    for name in names:
        place = draw(st.integers(0, 3))
        if place == 3:
            constants[name] = draw(VALUES)
        else:
            groups[place].append(name)
    axes = []
    for group in filter(None, groups):
        length = draw(st.integers(1, 4))
        axes.append(Axis(group[0], {name: draw(st.lists(VALUES, min_size=length, max_size=length)) for name in group}))
    return Space(tuple(axes), constants)


def same(value: Value, other: Value) -> bool:
    return type(value) is type(other) and repr(value) == repr(other)


def equal(graph: Graph, new: Space, task: int, old: Space, other: int) -> bool:
    """Whether two tasks bind the same and, where it matters, have the same seed."""
    ours, theirs = make_task(graph, new, 7, task), make_task(graph, old, 7, other)
    bound = all(same(ours.bindings[name], theirs.bindings[name]) for name in NAMES)
    return bound and (graph is PLAIN or ours.seed == theirs.seed)


@given(spaces(seeds=False), spaces(seeds=False))
def test_every_equal_task_is_found_and_no_other(new: Space, old: Space) -> None:
    for task, found in enumerate(matches(new, old)):
        if found == NONE:
            assert not any(equal(PLAIN, new, task, old, other) for other in range(old.size))
        else:
            assert equal(PLAIN, new, task, old, found)


@pytest.mark.parametrize("seeds", [(True, True), (False, False), (True, False), (False, True)])
@given(st.data())
def test_what_draws_random_numbers_matches_only_with_an_equal_seed(
    seeds: tuple[bool, bool], data: st.DataObject
) -> None:
    new, old = (data.draw(spaces(seeds=some)) for some in seeds)
    for task, found in enumerate(matches(new, old, DRAWING)):
        assert found == NONE or equal(DRAWING, new, task, old, found)


@given(spaces(seeds=False))
def test_a_space_matches_itself_task_by_task(new: Space) -> None:
    assert matches(new, new, DRAWING) == list(range(new.size))


def test_an_added_value_a_changed_axis_and_a_reordered_one() -> None:
    old = space({"a": [10, 20], "b": ["x", "y", "z"]}, c=1)
    assert matches(space({"a": [10, 20, 30], "b": ["x", "y", "z"]}, c=1), old) == [0, 1, 2, 3, 4, 5, NONE, NONE, NONE]
    assert matches(space({"b": ["z", "x"], "a": [20, 10]}, c=1), old) == [5, 2, 3, 0]
    assert matches(space({"a": [20], "b": ["w", "y"]}, c=1), old) == [NONE, 4]
    assert matches(space({"a,b": [(10, "z"), (20, "x"), (20, "w")]}, c=1), old) == [2, 3, NONE]
    assert matches(space({"a": [10, 20], "b": ["x"]}, c=2), old) == [NONE, NONE]
    assert matches(space({"a": [10], "c": [2, 1]}, b="y"), old) == [NONE, 1]


def test_a_seed_that_nothing_draws_from_does_not_matter() -> None:
    seeded, plain = space({"a": [1, 2], "seed": [0, 1]}, b=0, c=0), space({"a": [2, 1]}, b=0, c=0)
    assert matches(plain, seeded) == [2, 0]
    assert matches(seeded, plain) == [1, 1, 0, 0]
    assert matches(plain, seeded, DRAWING) == [NONE, NONE]


def test_repeated_values_that_draw_are_told_apart_by_their_number() -> None:
    again = space({"a": [1, 1, 1, 2]}, b=0, c=0)
    assert matches(again, space({"a": [1, 1]}, b=0, c=0), DRAWING) == [0, 1, NONE, NONE]


def test_spaces_of_different_parameters_match_nowhere() -> None:
    assert matches(space({"a": [1]}, b=0, c=0), space({"a": [1]}, b=0)) == [NONE]


def test_a_million_tasks_are_matched_in_less_than_two_seconds() -> None:
    old = space({"a": range(1000), "b": range(1000)}, c=0)
    new = space({"b": range(999, -1, -1), "a": range(1, 1001)}, c=0)
    began = process_time()
    found = Matching(PLAIN, new, old).old_tasks(np.arange(new.size))
    assert process_time() - began < 2
    assert (found[:3].tolist(), int((found == NONE).sum())) == ([1999, 2999, 3999], 1000)


def test_prompts_and_runs_do_not_matter_beyond_their_values() -> None:
    graph = Graph({"prompt": ParamType.PROMPT}, (Run("only", ParamRef("prompt")),), PLAIN.nodes)
    old = space({"prompt": ["the cat", (1, 2)]})
    assert matches(space({"prompt": [(1, 2), "the dog", "the cat"]}), old, graph) == [1, NONE, 0]
