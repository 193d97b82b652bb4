"""A test run that is killed leaves no server behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.afterwards import processes_of
from tests.devcluster import ROOT
from tests.waiting import until

RUN = """
import time
from pathlib import Path
from tests.devcluster import devcluster
from tests.queue import postgres

def test_that_is_killed():
    with devcluster(1, 0) as cluster, postgres.server() as url:
        partial = Path("places.tmp")
        partial.write_text(f"{cluster.folder.parent}\\n{url.partition('host=')[2]}")
        partial.rename("places")
        time.sleep(600)
"""


def test_the_servers_of_a_killed_run_end_and_their_folders_go(tmp_path: Path) -> None:
    (tmp_path / "test_killed.py").write_text(RUN)
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        "test_killed.py",
    ]
    run = subprocess.Popen(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    until((tmp_path / "places").exists, "the servers")
    slurm, database = map(Path, (tmp_path / "places").read_text().splitlines())
    assert {"slurmctld", "slurmd", "munged"} <= set(processes_of(slurm))
    assert "postgres" in set(processes_of(database))
    run.send_signal(signal.SIGKILL)
    run.wait()
    until(lambda: not (processes_of(slurm) + processes_of(database)), "the end of the servers")
    until(lambda: not slurm.exists() and not database.exists(), "the end of their folders")
