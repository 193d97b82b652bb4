"""Results in the terminal and as PNG: labelled, readable without colour, honest about what is missing."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Literal

import matplotlib.image
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ndif_batch.cli.plot import save_plot
from ndif_batch.cli.terminal import draw
from ndif_batch.client.panels import Panels, panels
from ndif_batch.client.picture import Axis, Picture, short, token_label
from ndif_batch.errors import UnavailableError

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def axis(name: str, length: int, tokens: list[str] | None = None) -> Axis:
    return Axis(name, [str(i) for i in range(length)], tokens or ())


def drawn(picture: Picture, width: int, *, colour: bool = False) -> list[str]:
    file = io.StringIO()
    system: Literal["truecolor"] | None = "truecolor" if colour else None
    console = Console(file=file, width=width, force_terminal=colour, color_system=system, legacy_windows=False)
    console.print(draw(picture, width))
    return file.getvalue().splitlines()


@pytest.fixture
def patching() -> Picture:
    """Three layers by four positions; the first is signed, one cell is missing."""
    values = np.array([[-4.6, 5.3, -4.6, -4.6], [-4.6, 0.0, np.nan, 0.36], [-4.6, -4.6, -4.6, 5.2]])
    return Picture("logit_diff", values, (axis("layer", 3), axis("position", 4, ["After", "␣Mary", "␣to", "⏎"])))


def test_a_heat_map_has_numbers_labels_tokens_and_a_legend(patching: Picture) -> None:
    lines = drawn(patching, 60)
    assert lines[0] == "logit_diff   rows: layer   columns: position"
    assert lines[1].split() == ["After", "␣Mary", "␣to", "⏎"]
    assert lines[2].split() == ["layer", "0", "1", "2", "3"]
    assert [line.split() for line in lines[3:6]] == [
        ["0", "-4.60", "5.300", "-4.60", "-4.60"],
        ["1", "-4.60", "0", "·", ".360"],
        ["2", "-4.60", "-4.60", "-4.60", "5.200"],
    ]
    assert lines[6].split()[0] == "-5.3"
    assert "5.3   · no number: 1" in lines[6]


def test_tokens_that_are_longer_than_a_cell_are_written_downwards() -> None:
    tokens = ["␣grocery", "␣to"]
    lines = drawn(Picture("x", np.zeros((1, 2)), (axis("layer", 1), axis("position", 2, tokens))), 60)
    above = ["".join(letters).strip() for letters in zip(*(line.ljust(60)[6:] for line in lines[1:9]), strict=True)]
    assert [text for text in above if text] == tokens
    assert lines[9].split() == ["layer", "0", "1"]


def test_colours_lie_symmetrically_about_zero_for_signed_values(patching: Picture) -> None:
    text = "\n".join(drawn(patching, 60, colour=True))
    assert patching.limits == (-5.3, 5.3)
    assert "48;2;178;24;43m 5.300" in text
    assert "48;2;247;247;247m" in text
    plain = [ANSI.sub("", line).rstrip() for line in text.splitlines()]
    assert plain == [line.rstrip() for line in drawn(patching, 60)]


def test_no_color_leaves_the_numbers(patching: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    Console(file=file, width=60, force_terminal=True).print(draw(patching, 60))
    assert "48;2" not in file.getvalue()
    assert "5.300" in file.getvalue()


def test_narrow_cells_are_shaded_and_signed() -> None:
    values = np.array([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    lines = drawn(Picture("x", values, (axis("a", 1), axis("b", 5))), 13)
    assert "0 -█-▒   ▒ █" in lines


def test_no_line_is_wider_than_the_terminal() -> None:
    for width in (24, 40, 80, 200):
        for columns in (1, 7, 60, 500):
            values = np.random.default_rng(0).normal(size=(5, columns))
            lines = drawn(Picture("x", values, (axis("a", 5), axis("b", columns))), width)
            assert max(map(cell_len, lines)) <= width, (width, columns)


def test_what_does_not_fit_is_said() -> None:
    values = np.zeros((200, 300))
    lines = drawn(Picture("x", values, (axis("layer", 200), axis("position", 300))), 80)
    assert any("every 4th layer is shown" in line for line in lines)
    assert any("position is shown" in line for line in lines)
    assert len(lines) < 80


def test_bars_grow_from_zero_to_both_sides() -> None:
    values = np.array([-1.0, 0.0, np.nan, 2.0])
    _, low, zero, missing, high = drawn(Picture("x", values, (axis("layer", 4),)), 50)
    assert low.index("█") < high.index("█")
    assert low.rindex("█") + 1 == high.index("█")
    assert high.count("█") == pytest.approx(2 * low.count("█"), abs=1)
    assert "█" not in zero + missing
    assert missing.endswith("·")


def test_a_single_value_is_a_number() -> None:
    assert drawn(Picture("x", np.array(4.25), ()), 40) == ["x  4.25"]


@given(st.floats(-1e300, 1e300) | st.just(float("nan")) | st.just(float("inf")), st.integers(1, 8))
def test_a_short_number_fits_and_keeps_its_sign(value: float, width: int) -> None:
    text = short(value, width)
    assert len(text) <= width
    if text not in ("·", "#") and float(text) != 0:
        assert (float(text) < 0) == (value < 0)
        assert float(text) == pytest.approx(value, rel=0.5, abs=0.51)


def test_token_labels_show_what_is_invisible() -> None:
    assert [token_label(piece) for piece in (" Mary", "to", "\n", "\t", "\x00")] == ["␣Mary", "to", "⏎", "⇥", "\\x00"]


def test_infinite_values_are_at_the_ends_of_the_scale() -> None:
    values = np.array([[np.inf, 1.0, -np.inf, np.nan, 2.0]])
    lines = drawn(Picture("x", values, (axis("a", 1), axis("b", 5))), 60)
    assert lines[2].split() == ["0", "inf", "1.000", "-inf", "·", "2.000"]
    assert "no number: 1" in lines[3]
    bars = drawn(Picture("x", values[0], (axis("b", 5),)), 60)
    assert bars[1].count("█") == max(line.count("█") for line in bars)
    assert [line.split()[-1] for line in bars[1:]] == ["inf", "1", "-inf", "·", "2"]


def cube(*shape: int) -> xarray.DataArray:
    """Whole numbers that count up, with dimensions ``a``, ``b`` and so on."""
    dims = [chr(ord("a") + k) for k in range(len(shape))]
    coords = {dim: np.arange(length) * 10 for dim, length in zip(dims, shape, strict=True)}
    return xarray.DataArray(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), dims=dims, coords=coords)


def test_the_two_longest_dimensions_are_drawn_and_the_others_stand_beside_each_other() -> None:
    data = cube(2, 5, 1, 4, 3)
    found = panels(data, "x", None, 12)
    assert (found.dims, found.total, len(found.pictures)) == (("a", "e"), 6, 6)
    assert [one.name for one in found.pictures[0].axes] == ["b", "d"]
    assert [one.title for one in found.pictures] == [f"x at a={a}, c=0, e={e}" for a in (0, 10) for e in (0, 10, 20)]
    np.testing.assert_array_equal(found.pictures[4].values, data[1, :, 0, :, 1])


def test_of_many_pictures_some_are_chosen_evenly_and_share_one_scale() -> None:
    data = cube(31, 40, 50) - 500
    found = panels(data, "x", None, 4)
    assert (found.total, [one.title for one in found.pictures]) == (31, [f"x at a={k}" for k in (0, 100, 200, 300)])
    assert {one.limits for one in found.pictures} == {(-61499.0, 61499.0)}
    assert all(one.signed for one in found.pictures)


def test_integers_have_no_number_where_their_sentinel_stands() -> None:
    data = xarray.DataArray(np.array([3, -(2**31)], np.int32), dims=["a"])
    np.testing.assert_array_equal(panels(data, "x", None, 1).pictures[0].values, [3.0, np.nan])


@pytest.mark.parametrize("shape", [(), (7,), (4, 5), (3, 4, 5), (3, 2, 4, 5)])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_png_is_drawn_of_any_number_of_dimensions(shape: tuple[int, ...], missing: int, tmp_path: Path) -> None:
    data = cube(*shape)
    if missing:
        data = data.where(data > 2) if missing == 1 else data * np.nan
    save_plot(panels(data, "$x_1 at <home>", None, 12), tmp_path / "out.png")
    picture = matplotlib.image.imread(tmp_path / "out.png")
    assert (picture.std(axis=(0, 1))[:3] > 0).all()
    is_grey = (np.abs(picture[..., :3] - 0.8) < 0.01).all(axis=-1).mean() > 0.01
    assert is_grey == (missing > 0 and len(shape) >= 2)


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path, patching: Picture) -> None:
    one = Panels((patching,), (), 1)
    for name in ("no such folder/out.png", "out.docx"):
        with pytest.raises(UnavailableError, match="cannot draw into"):
            save_plot(one, tmp_path / name)
