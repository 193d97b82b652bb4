"""The archive's benchmark runs to its end, and the page is written from its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = {"tiles": 2, "passes": 4, "pass-seconds": 0.01, "tasks": 60, "group-tasks": 20, "million": 4000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    options = {**SMALL, "output": made / "archive-here.json", "pictures": made, "folder": made}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, str(ROOT / "benchmarks/archive.py"), *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def test_a_small_archive_is_measured(folder: Path) -> None:
    report = json.loads((folder / "archive-here.json").read_text())
    for found in report["bandwidth"].values():
        assert found["compressed_bytes"] < found["bytes"] == 32 * 2**20
        assert set(found["median_seconds"]) == {"encode", "plain", "files", "write_shard"}
    assert report["overlap"]["committed"] == 4
    files = {name: one["files"] for name, one in report["layouts"].items()}
    assert files["safetensors"] == 60
    assert files["archive"] < 15 < files["zarr_groups"]
    assert report["million"]["tasks"] == 4000
    assert (folder / report["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_every_figure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from archive_numbers import archive_section

    text = archive_section(folder)
    assert text.count("| this archive, synced") == 2
    assert "compressing and writing together" in text
    assert "pictures/archive-here.png" in text
    assert archive_section(folder / "none") == "Not measured yet."
