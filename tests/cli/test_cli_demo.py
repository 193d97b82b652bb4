"""The demonstration works with nothing set up, shows what the literature shows, and says so when its worker dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ndif_batch.cli.demo import SWEEP, catalogue
from ndif_batch.client.demo import demo_settings

ROOT = Path(__file__).parents[2]
CHANGED_NAME, LAST = 10, 16


def command_line(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ndif_batch.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_demo_shows_the_answer_move_from_the_changed_name_to_the_last_token(tmp_path: Path) -> None:
    done = command_line("demo", NDIF_BATCH_DATA_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "510/510" in done.stderr
    assert "logit_diff of ioi-patching (1)   rows: layer   columns: position" in done.stdout
    advice = done.stdout[done.stdout.index("How to read it") :]
    assert [line.partition(":")[0] for line in advice.splitlines()[2:]] == ["The array", "in Python", "Try next"]
    assert (tmp_path / "demo" / "ioi_patching.png").stat().st_size > 10_000

    printed = command_line(
        "results", "get", "1", "logit_diff", "-o", "json", NDIF_BATCH_DATA_DIR=str(tmp_path / "demo")
    )
    values = np.full((30, 17), np.nan)
    for row in json.loads(printed.stdout):
        values[row["layer"], row["position"]] = row["logit_diff"]
    assert np.isfinite(values).all()
    clean, corrupted = 5.3, -4.6
    assert values[:18, CHANGED_NAME] == pytest.approx(clean, abs=0.2)
    assert values[24:, LAST] == pytest.approx(clean, abs=1.2)
    assert (values[:18, LAST] < corrupted + 0.5).all()
    assert (values[24:, CHANGED_NAME] < corrupted + 0.5).all()
    elsewhere = np.delete(values, [CHANGED_NAME, CHANGED_NAME + 1, LAST], axis=1)
    assert elsewhere == pytest.approx(corrupted, abs=0.2)


def test_the_demo_keeps_its_queue_and_archive_to_itself(settled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_BATCH_DATABASE_URL", "postgresql+psycopg://host/db")
    monkeypatch.setenv("NDIF_BATCH_ARCHIVE_DIR", "/elsewhere")
    settings = demo_settings()
    assert settings.database == f"sqlite:///{settled / 'demo' / 'queue.db'}"
    assert settings.archive == settled / "demo" / "archive"
    assert settings.model_cache == settled / "models"


def test_the_sweep_of_the_demo_is_found_wherever_one_stands(settled: Path) -> None:
    assert (catalogue() / SWEEP).is_file()
