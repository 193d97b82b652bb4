"""What method random draws, and what include and exclude make of a space."""

from __future__ import annotations

import statistics
from collections import Counter
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.errors import SweepError
from ndif_batch.sweep.load import load_sweep
from ndif_batch.sweep.space import Axis, Rule, Space

HEAD = "version: 1\nname: s\nmodel: m\njob: x.py\n"
GRID = "parameters:\n  layer: {range: [0, 4]}\n  scale: [0.5, 1, 2]\n  word: Paris\n"
DRAWN = """method: random
samples: {samples}
parameters:
  rate: {{distribution: log_uniform, min: 0.001, max: 1}}
  size: {{distribution: uniform, min: -1, max: 3}}
  heads: {{distribution: int_uniform, min: 1, max: 3}}
  noise: {{distribution: normal, mu: 2, sigma: 0.5}}
  rare: {{distribution: choice, values: [no, "yes", never], probabilities: [0.75, 0.25, 0]}}
  "clean, answer": [[A, a], [B, b]]
  layer: {{range: [0, 30]}}
  word: Paris
"""


def space(folder: Path, text: str, seed: int = 0) -> Space:
    (folder / "x.py").write_text("")
    (folder / "s.yaml").write_text(HEAD + text)
    return load_sweep(folder / "s.yaml", seed=seed).space


def columns(drawn: Space) -> dict[str, Any]:
    return {name: list(values) for axis in drawn.axes for name, values in axis.columns.items()}


def running(found: Space, *names: str) -> list[tuple[Any, ...]]:
    """What the tasks that run bind to some parameters."""
    skipped = found.excluded()
    numbers = range(found.size) if skipped is None else np.flatnonzero(~skipped).tolist()
    return [tuple(found.bindings(task)[name] for name in names) for task in numbers]


def test_drawn_points_lie_on_one_axis_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = space(tmp_path, DRAWN.format(samples=5) + "seeds: 2\n")
    assert [(axis.name, len(axis)) for axis in found.axes] == [("point", 5), ("seed", 2)]
    assert list(columns(found))[:7] == ["rate", "size", "heads", "noise", "rare", "clean", "answer"]
    assert found.constants == {"word": "Paris"}


def test_each_distribution_is_what_its_name_says(tmp_path: Path) -> None:
    drawn = columns(space(tmp_path, DRAWN.format(samples=20_000)))
    assert (min(drawn["rate"]) > 0.001, max(drawn["rate"]) < 1) == (True, True)
    assert abs(statistics.mean(map(log, drawn["rate"])) - log(0.001) / 2) < 0.05
    assert abs(statistics.mean(drawn["size"]) - 1) < 0.03
    assert (min(drawn["size"]) >= -1, max(drawn["size"]) <= 3) == (True, True)
    assert all(6_300 < count < 7_000 for count in Counter(drawn["heads"]).values())
    assert set(drawn["heads"]) == {1, 2, 3}
    assert abs(statistics.mean(drawn["noise"]) - 2) < 0.02
    assert abs(statistics.stdev(drawn["noise"]) - 0.5) < 0.02
    assert set(drawn["rare"]) == {"no", "yes"}
    assert 4_700 < Counter(drawn["rare"])["yes"] < 5_300
    assert set(zip(drawn["clean"], drawn["answer"], strict=True)) == {("A", "a"), ("B", "b")}
    assert set(drawn["layer"]) == set(range(30))


def test_one_seed_draws_the_same_and_more_samples_begin_with_the_fewer(tmp_path: Path) -> None:
    few = columns(space(tmp_path, DRAWN.format(samples=7), seed=3))
    assert few == columns(space(tmp_path, DRAWN.format(samples=7), seed=3))
    more = columns(space(tmp_path, DRAWN.format(samples=70), seed=3))
    assert {name: values[:7] for name, values in more.items()} == few
    other = columns(space(tmp_path, DRAWN.format(samples=7), seed=4))
    assert all(other[name] != few[name] for name in ("rate", "size", "noise", "layer"))


def test_what_a_parameter_draws_does_not_depend_on_the_others(tmp_path: Path) -> None:
    both = columns(space(tmp_path, DRAWN.format(samples=9)))
    alone = "method: random\nsamples: 9\nparameters:\n  noise: {distribution: normal, mu: 2, sigma: 0.5}\n"
    assert columns(space(tmp_path, alone))["noise"] == both["noise"]
    assert both["size"][0] != pytest.approx(4 * (both["noise"][0]))


def test_drawn_values_are_the_same_on_every_machine(tmp_path: Path) -> None:
    drawn = columns(space(tmp_path, DRAWN.format(samples=2)))
    assert drawn["heads"] == [2, 1]
    assert drawn["rate"] == pytest.approx([0.010012966, 0.039507361], rel=1e-6)


def test_exclude_takes_out_every_point_that_has_the_values(tmp_path: Path) -> None:
    found = space(tmp_path, GRID + "exclude: [{layer: 0}, {layer: {range: [2, 4]}, scale: {values: [1, 2]}}]\n")
    assert found.shape == (4, 3)
    assert running(found, "layer", "scale") == [(1, 0.5), (1, 1), (1, 2), (2, 0.5), (3, 0.5)]


def test_include_brings_points_back_and_adds_new_ones(tmp_path: Path) -> None:
    found = space(
        tmp_path, GRID + "exclude: [{layer: 0}]\ninclude: [{layer: 0, scale: 1}, {layer: 9}, {scale: 7, layer: 2}]\n"
    )
    assert found.shape == (5, 4)
    rest = [(layer, scale) for layer in (1, 2, 3) for scale in (0.5, 1, 2)]
    expected = {(0, 1), *rest, *((9, scale) for scale in (0.5, 1, 2)), (2, 7)}
    assert set(running(found, "layer", "scale")) == expected
    assert len(running(found, "layer")) == len(expected)


def test_a_whole_row_is_added_to_tied_parameters(tmp_path: Path) -> None:
    rows = 'parameters:\n  "clean, answer": [[A, a], [B, b]]\n  layer: [0, 1]\n'
    found = space(tmp_path, rows + "exclude: [{clean: A, layer: 1}]\ninclude: [{clean: C, answer: c, layer: 0}]\n")
    assert running(found, "clean", "answer", "layer") == [("A", "a", 0), ("B", "b", 0), ("B", "b", 1), ("C", "c", 0)]


def test_points_are_added_to_a_zipped_space_and_taken_by_their_seed(tmp_path: Path) -> None:
    pairs = "method: zip\nparameters:\n  a: [1, 2]\n  b: [3, 4]\nseeds: 2\n"
    found = space(tmp_path, pairs + "exclude: [{a: 1, seed: 1}]\ninclude: [{a: 5, b: 6}]\n")
    assert running(found, "a", "b", "seed") == [(1, 3, 0), (2, 4, 0), (2, 4, 1), (5, 6, 0), (5, 6, 1)]


@given(st.data())
def test_rules_survive_json_and_the_last_one_counts(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axes = tuple(Axis(f"a{k}", {f"a{k}": range(length)}) for k, length in enumerate(lengths))
    places = [st.lists(st.integers(0, length - 1), unique=True) for length in lengths]
    named = st.fixed_dictionaries({}, optional={f"a{k}": one for k, one in enumerate(places)})
    rules = [
        Rule(runs, at) for runs, at in data.draw(st.lists(st.tuples(st.booleans(), named), min_size=1, max_size=5))
    ]
    found = Space(axes, {}, tuple(rules))
    again = Space.from_json(found.to_json()).excluded()
    assert again is not None
    for task in range(found.size):
        point = dict(zip((axis.name for axis in axes), found.point(task), strict=True))
        runs = True
        for rule in rules:
            if all(point[name] in at for name, at in rule.places.items()):
                runs = rule.runs
        assert again[task] == (not runs)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        (GRID + "exclude: [{layer: 7}]\n", 9, "exclude[0].layer: no point has 7", "the nearest is 3, in 0 to 3"),
        (GRID + "exclude: [{layr: 1}]\n", 9, "no parameter 'layr' varies", "did you mean 'layer'?"),
        (GRID + "exclude: [{word: Paris}]\n", 9, "word: the parameter never varies", "make it a list"),
        (GRID + "exclude: [{layer: {rnge: [0, 1]}}]\n", 9, "give a value, or one of range, values", "'range'"),
        (GRID + "exclude: [{layer: {range: [2, 2]}}]\n", 9, "the range [2, 2] is empty", "not included"),
        (GRID + "exclude: [{layer: [1, 2]}]\n", 9, "no point has (1, 2)", "several values are {values: [1, 2]}"),
        ("schedule: high\n", 5, "schedule: must be a mapping", ""),
        (GRID + "exclude: [{}]\n", 9, "at least 1 item", ""),
        (GRID + "exclude: {layer: 1}\n", 9, "exclude: must be a list", ""),
        (GRID + "exclude:\n- layer: {range: [0, 4]}\n", 9, "no point of the sweep is left", ""),
        (GRID + "include: [{layer: true}]\nexclude: [{scale: true}]\n", 10, "no point has True", ""),
        ('parameters: {"a,b": [[1, 2]]}\ninclude: [{a: 3}]\n', 6, "no point has 3", "a new point gives b, too"),
        ('parameters: {"a,b": [[1, 2], [3, 4]]}\nexclude: [{a: 1, b: 4}]\n', 6, "values of a and b together", ""),
        ("method: random\nsamples: 0\n", 6, "samples: must be greater than or equal to 1", ""),
        ("method: random\nsamples: 2\nparameters: {a: 1}\n", 7, "every parameter is a constant", ""),
        ("parameters: {a: {distribution: normal}}\n", 5, "only method random draws values", "method: random"),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: nrmal}}\n",
            7,
            "no distribution 'nrmal'",
            "'normal'",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: log_uniform_values, min: 1, max: 2}}\n",
            7,
            "no distribution 'log_uniform_values'",
            "did you mean 'log_uniform'?",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: uniform, mn: 1, max: 2}}\n",
            7,
            "unknown key 'mn'",
            "'min'",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: uniform, min: 1}}\n",
            7,
            "the key 'max' is missing",
            "",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: uniform, min: 3, max: 1}}\n",
            7,
            "min is 3.0 and max is 1.0",
            "",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: log_uniform, min: -5, max: 1}}\n",
            7,
            "greater than 0",
            "",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: int_uniform, min: 0.5, max: 1}}\n",
            7,
            "a whole number",
            "",
        ),
        (
            "method: random\nsamples: 2\nparameters: {a: {distribution: choice, values: [1, 2], probabilities: [1]}}\n",
            7,
            "one for each of the 2 values and sum up to 1, not 1 in 1",
            "",
        ),
        ('method: random\nsamples: 2\nparameters: {"a,b": {distribution: normal}}\n', 7, "drawn as rows", "choice"),
        ('method: random\nsamples: 2\nparameters: {"a,b": [[1, 2]], a: [1]}\n', 7, "'a' is given twice", ""),
        ("save: []\n", 5, "save: List should have at least 1 item", ""),
        ("resources: {gpus: 1}\n", 5, "unknown key 'gpus'", "gpus_per_node"),
        ("resources: {slurm_partition: x}\n", 5, "unknown key 'slurm_partition'", "'partition'"),
        ("resources: {gpus_per_node: '1'}\n", 5, "gpus_per_node: must be a whole number", ""),
        ("schedule: {priority: hihg}\n", 5, "schedule.priority: must be 'low', 'normal' or 'high', or a", "'high'"),
        ("schedule: {max_retry: 3}\n", 5, "unknown key 'max_retry'", "'max_retries'"),
        ("schedule: {max_retries: -1}\n", 5, "greater than or equal to 0", ""),
        ("retention_days: 0\n", 5, "retention_days: must be greater than or equal to 1", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_line_its_key_and_the_nearest_that_is_right(
    tmp_path: Path, text: str, line: int, message: str, hint: str
) -> None:
    with pytest.raises(SweepError) as caught:
        space(tmp_path, text)
    assert (caught.value.line, message in caught.value.message) == (line, True), caught.value
    assert hint in (caught.value.hint or "")
