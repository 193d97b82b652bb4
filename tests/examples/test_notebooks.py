"""The notebooks run from an empty queue, find what their text says, and are stored as they ran."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
MOST_BYTES = 400_000
PICTURE = "image/png"

FINDINGS = {
    "ioi_patching": """
assert right.min() > 2 and wrong.max() < -2
assert by_place.sel(layer=slice(0, 18), position=CHANGED).min() > 0.95
assert by_place.sel(layer=slice(23, 29), position=LAST).min() > 0.8
assert abs(by_place.sel(layer=[20, 21, 22], position=[CHANGED, LAST]) - 0.5).max() < 0.1
assert abs(by_place.sel(position=[10, 11, 12])).max() < 0.1
assert shares["MLP"].sel(layer=0, position=CHANGED) > 0.95
assert np.argmax(shares["attention"].sel(position=CHANGED).values) == 17
assert set(shares["attention"].layer.values[shares["attention"].sel(position=LAST) > 0.1]) == {19, 20, 23}
assert np.argmin(shares["attention"].sel(position=LAST).values) == 24
at = lambda position, layer, head: head_share.sel(position=position, layer=layer, head=head)
assert min(at(CHANGED, 17, 4), at(LAST, 19, 2), at(LAST, 20, 0), at(LAST, 23, 3)) > 0.1 > 0 > at(LAST, 24, 4)
assert at(LAST, 23, 3) == head_share.max() and at(LAST, 24, 4) == head_share.min()
""",
    "probes": """
sentence, word, no, lot = (held_out.mean(0)[:, list(labels).index(name)] for name in (
    "the sentence is kind", "the adjective is kind", "there is a not", "control: drawn by lot"))
assert no.min() > 0.99 and word[1:].min() > 0.9
assert sentence[0] < 0.8 and (sentence[LAYERS.index(15):] > 0.95).all()
assert abs(lot - 0.5).max() < 0.2 and seen[:, 1:, -1].min() > 0.95
""",
    "steering": """
before, plus, minus = (preference[STRENGTHS.index(strength)] for strength in (0, 1, -1))
assert np.ptp(before) == 0 and (plus > before + 4).all() and (minus < before - 3).all()
assert written["tokens"].shape == (len(BEGINNINGS), len(DOSES), TOKENS)
assert len(set(texts.flat)) == texts.size
assert "great meal" in texts[0, DOSES.index(0.75)] and "nightmare" in texts[1, DOSES.index(-1.5)]
""",
}
"""What the text of each notebook says it shows, of the variables that it has at its end."""


def stored(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def kinds(notebook: Any) -> list[list[str]]:
    """What each cell puts out: a stream's name, or the best format of a display."""
    return [
        [output.get("name") or sorted(output.data)[0] for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(FINDINGS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDINGS)
def test_a_notebook_runs_from_an_empty_queue_and_finds_what_its_text_says(name: str, tmp_path: Path) -> None:
    notebook = stored(name)
    before = kinds(notebook)
    last = notebook.cells[-1]
    assert last.source == "client.close()"
    last.source = f"{FINDINGS[name]}\n{last.source}"
    copy = tmp_path / f"{name}.ipynb"
    nbformat.write(notebook, copy)
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", copy], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert kinds(nbformat.read(copy, as_version=4)) == before


@pytest.mark.parametrize("name", FINDINGS)
def test_a_notebook_is_stored_whole_with_its_figures_and_small(name: str) -> None:
    notebook = stored(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [
        output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert [output for output in outputs(notebook) if PICTURE in output.get("data", {})]
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", FINDINGS)
def test_a_notebook_says_nothing_of_the_machine_that_ran_it(name: str) -> None:
    notebook = stored(name)
    for output in outputs(notebook):
        output.get("data", {}).pop(PICTURE, None)
    text = nbformat.writes(notebook)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|usr|work|var|Users)/[\w.-]+", text) == []


@pytest.mark.parametrize("name", FINDINGS)
def test_a_notebook_names_its_sources_and_begins_with_its_question(name: str) -> None:
    first = stored(name).cells[0].source
    assert first.startswith("# ")
    assert first.splitlines()[0].endswith("?")
    assert len(re.findall(r"arxiv\.org/abs/\d{4}\.\d{5}", first)) >= 2
