"""The cluster at work that `make demo-cluster` shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ndif_batch.queue.http import RemoteApi, connect
from ndif_batch.queue.records import JobState
from tests.afterwards import DIES_WITH_US, processes_of
from tests.devcluster import ROOT
from tests.waiting import until

SAYS = re.compile(r"NDIF_BATCH_URL=(?P<url>\S+) NDIF_BATCH_TOKEN=(?P<token>\S+)")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Which the user of PostgreSQL may enter, and whose sockets have short names."""
    with TemporaryDirectory(prefix="ndif-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.slow
def test_five_users_jobs_are_done_over_http_and_an_interrupt_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        command = [sys.executable, str(ROOT / "slurm/democluster")]
        environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
        demo = subprocess.Popen([*DIES_WITH_US, *command], stdout=out, stderr=out, env=environment)
        until(lambda: SAYS.search(said.read_text()) or demo.poll() is not None, "the address", 120)
        address = SAYS.search(said.read_text())
        assert address, said.read_text()
        assert "ssh -L" in said.read_text()
        api = connect(address["url"], address["token"])
        until(lambda: len(served(api)) > 1 or demo.poll() is not None, "jobs of two users", 240)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, said.read_text()
    assert said.read_text().endswith("everything has ended\n")
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def served(api: RemoteApi) -> set[str]:
    """The users who have results."""
    return {job.user for job in api.jobs() if job.state is JobState.COMPLETED}
