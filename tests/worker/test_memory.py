"""A worker's memory does not grow with what its jobs save."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def grown(root: Path, tasks: int, mib: int) -> int:
    """MiB by which a worker grows over so many tasks that save so many MiB each."""
    command = [sys.executable, "-m", "tests.worker.big_saves", str(root), str(tasks), str(mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    saved, more = done.stdout.split()[-2:]
    assert int(saved) == tasks
    return int(more)


@pytest.mark.slow
def test_many_saves_take_the_memory_of_one_pass_and_of_what_waits_to_be_written(tmp_path: Path) -> None:
    assert grown(tmp_path, tasks=40, mib=64) < 1400, "of 2560 MiB that are saved"


@pytest.mark.slow
def test_a_large_save_is_in_memory_a_few_times_however_many_tasks_there_are(tmp_path: Path) -> None:
    """As the engine has it, as it is written, and as it is compared with the task run again alone."""
    assert grown(tmp_path, tasks=4, mib=512) < 4 * 512
