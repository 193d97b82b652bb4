"""The demonstration works with nothing set up, shows what the literature shows, and says so when its worker dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ndif_batch.cli.demo import SWEEP, catalogue, demo_settings
from ndif_batch.cli.local_worker import LocalWorker, local_worker
from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from tests import toy
from tests.cli.conftest import Run

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


def test_a_worker_that_dies_is_told_with_the_end_of_its_log(client: Client, run: Run, tmp_path: Path) -> None:
    run("sweep", "run", "sweep.yaml")
    record = client.job(1).record
    log = tmp_path / "worker.log"
    log.write_text("first\nout of memory\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with pytest.raises(UnavailableError, match="the worker ended with exit code 3 before job 1 had ended") as caught:
        LocalWorker(process, log).check(record)
    assert "out of memory" in (caught.value.hint or "")
    killed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    killed.kill()
    killed.communicate()
    with pytest.raises(UnavailableError, match="was killed by signal 9"):
        LocalWorker(killed, log).check(record)


def test_a_local_worker_has_the_settings_of_its_parent_and_ends_with_the_block(settled: Path) -> None:
    """The toy model has no weights, so the worker ends by itself: with an error that its log tells."""
    client = toy.client(settled / "house")
    with local_worker(client.settings, toy.NAME) as worker:
        worker.process.wait(timeout=60)
    assert worker.process.returncode in (1, 2, 3, 6)
    assert "error: " in worker.log.read_text()
    assert [record.model for record in client.queue.workers()] == [toy.NAME]
    client.close()
