"""The simulated day: every way does all of the work, within the GPUs, and the same day twice is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DAY = ["--gpus", "30", "--users", "60", "--jobs", "300", "--load", "0.5"]


def simulate(folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks/cluster_sim.py"), *DAY]
    command += ["--output", str(folder / "day.json"), "--pictures", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads((folder / "day.json").read_text())["results"]
    return results


def test_a_small_day_adds_up(tmp_path: Path) -> None:
    results = simulate(tmp_path)
    again = simulate(tmp_path)
    assert len(results) == 3
    for way, found in results.items():
        assert found["work_gpu_hours"] == pytest.approx(0.5 * 30 * 24, rel=0.02), way
        assert 0 < found["utilisation"] <= found["held"] <= 1, way
        assert 0 < found["wait_seconds"]["mean"] < found["turnaround_seconds"]["mean"], way
        for name in ("wait_seconds", "jain", "loads", "all_done_hours"):
            assert again[way][name] == found[name], (way, name)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "cluster_fairness.png",
        "cluster_utilisation.png",
        "cluster_wait.png",
    ]
