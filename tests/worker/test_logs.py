"""What is logged and cannot be written is lost, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOGS = """import structlog
from ndif_batch.worker.logs import configure_logs

configure_logs()
for _ in range(3):
    structlog.get_logger().info("shard.done", shard=1)
print("it went on")
"""


def test_a_log_on_a_full_disk_stops_nobody() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "it went on\n"
