"""Values on the command line mean what the type of their parameter says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ndif_batch.cli.values import space_from, variables_from
from ndif_batch.errors import SweepError
from ndif_batch.graph.nodes import ParamType

PARAMS = {
    "layer": ParamType.INT,
    "scale": ParamType.FLOAT,
    "on": ParamType.BOOL,
    "clean": ParamType.PROMPT,
    "site": ParamType.STR,
    "vector": ParamType.TENSOR,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("layer=3", 3),
        ("layer=-1", -1),
        ("layer= Paris", " Paris"),
        ("scale=1e-3", 0.001),
        ("on=true", True),
        ("on=False", False),
        ("clean=3", "3"),
        ("clean=A, B = C", "A, B = C"),
        ("clean=@@home", "@home"),
        ("site=yes", "yes"),
        ("clean=", ""),
    ],
)
def test_a_constant(text: str, value: object) -> None:
    (found,) = space_from(PARAMS, [text], [], []).constants.values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("layer=0:30", range(30)),
        ("layer=0:30:10", range(0, 30, 10)),
        ("layer=3:0:-1", range(3, 0, -1)),
        ("layer=0,5,-1", [0, 5, -1]),
        ("layer= Paris, Rome", [" Paris", " Rome"]),
        ("scale=0:3", range(3)),
        ("scale=0.5,1", [0.5, 1.0]),
        ("on=true,false", [True, False]),
        ("clean=A, B", ["A, B"]),
        ("seed=0:3", range(3)),
    ],
)
def test_an_axis(text: str, values: object) -> None:
    (axis,) = space_from(PARAMS, [], [text], []).axes
    assert dict(axis.columns) == {axis.name: values}


def test_files_hold_lists_and_tied_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("layers.json").write_text("[1, 4, 9]")
    Path("ids.json").write_text("[5, 6]")
    Path("pairs.csv").write_text("clean,site,more\nA,x,1\nB,y,2\n")
    space = space_from(PARAMS, ["clean=@ids.json"], ["layer=@layers.json"], [])
    assert (space.axes[0].columns, space.constants) == ({"layer": [1, 4, 9]}, {"clean": (5, 6)})
    tied = space_from(PARAMS, [], ["clean,site=@pairs.csv"], ["layer=0:2", "scale=1,2"])
    assert [axis.name for axis in tied.axes] == ["clean", "point"]
    assert tied.bindings(3) == {"clean": "B", "site": "y", "layer": 1, "scale": 2.0}


@pytest.mark.parametrize(
    ("constants", "grid", "tied", "message"),
    [
        (["layer"], [], [], "'layer' is not name=value"),
        (["layr=1"], [], [], "no parameter 'layr'"),
        (["scale=much"], [], [], "'scale' is a number and cannot be 'much'"),
        (["on=yes"], [], [], "'on' is true or false and cannot be 'yes'"),
        (["vector=1"], [], [], "'vector' is a tensor"),
        ([], ["layer=3:3"], [], "the range 3:3 is empty"),
        ([], ["layer=0:3:0"], [], "the range 0:3:0 is empty"),
        ([], ["clean,site=a,b"], [], "take their values from a file"),
        (["layer=1"], ["layer=0:2"], [], "'layer' is given twice"),
        (["layer=1", "layer=2"], [], [], "'layer' is given twice"),
        ([], ["layer=0:2", "layer=0:3"], [], "'layer' is given twice"),
        ([], [], ["layer=0:2", "layer=0:2"], "'layer' is given twice"),
        ([], [], ["layer=0:2", "scale=1,2,3"], "different lengths"),
    ],
)
def test_what_is_wrong_is_named(constants: list[str], grid: list[str], tied: list[str], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        space_from(PARAMS, constants, grid, tied)


def test_variables_of_a_sweep_are_typed_as_yaml_types_them() -> None:
    assert variables_from(["n=3", "x=0.5", "who= Mary", "yes=yes"]) == {"n": 3, "x": 0.5, "who": " Mary", "yes": "yes"}
