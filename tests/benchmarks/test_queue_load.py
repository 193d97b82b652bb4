"""The queue's benchmark runs to its end, on both databases, and tells every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["--shards", "60000", "--users", "20", "--workers", "4", "--seconds", "1"]


def test_a_small_queue_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/queue_load.py"), *SMALL, "--output", str(tmp_path / "queue.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "queue.json").read_text())["results"]
    assert set(results) == {"sqlite", "postgresql"}
    for found in results.values():
        assert found["submit"]["shards"] == 60_000
        for load in ("busy", "paced"):
            assert 0 < found[load]["lease"]["p50_ms"] <= found[load]["lease"]["p99_ms"]
            assert found[load]["shards_per_second"] > 0
