"""What holds for pilots that are processes of this host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ndif_batch.errors import SettingsError, UnavailableError
from ndif_batch.launcher import PilotRequest
from ndif_batch.launcher.local import LocalLauncher
from ndif_batch.launcher.processes import PilotProcess, pilot_processes
from tests.devcluster import ROOT
from tests.launcher import bodies
from tests.launcher.conftest import active
from tests.waiting import until

DEVICES = ("2", "3", "GPU-5c1a")
STARTER = """
import sys
from pathlib import Path
from ndif_batch.launcher import PilotRequest
from ndif_batch.launcher.local import LocalLauncher
from tests.launcher import bodies

LocalLauncher(Path(sys.argv[1]), bodies.waiting).start(PilotRequest("a", "toy"))
print("started")
"""


@contextmanager
def opened(folder: Path) -> Iterator[LocalLauncher]:
    """A launcher none of whose pilots outlives the block."""
    made = LocalLauncher(folder, bodies.waiting, DEVICES)
    yield made
    for name in active(made):
        made.cancel(name)
    until(lambda: not active(made), "the end of every pilot")


@pytest.fixture
def launcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalLauncher]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with opened(folder) as made:
        yield made


def start(launcher: LocalLauncher, name: str, gpus: int) -> str:
    """Starts a pilot and gives its devices as it sees them."""
    launcher.start(PilotRequest(name, "toy", resources={"gpus_per_node": gpus}))
    began = launcher.folder / name / bodies.BEGAN
    until(began.exists, f"pilot {name}")
    return dict(line.split("=", 1) for line in began.read_text().splitlines())["CUDA_VISIBLE_DEVICES"]


def processes(folder: Path) -> list[PilotProcess]:
    return [process for process in pilot_processes() if process.folder == folder]


def test_pilots_that_run_at_once_have_different_gpus_whoever_started_them(launcher: LocalLauncher) -> None:
    assert start(launcher, "a", 1) == "2"
    with opened(launcher.folder.parent / "elsewhere") as elsewhere:
        assert start(elsewhere, "b", 2) == "3,GPU-5c1a"
        assert start(launcher, "c", 0) == ""
        with pytest.raises(UnavailableError, match="1 GPUs were asked for, and 0 of 3 are free"):
            launcher.start(PilotRequest("d", "toy", resources={"gpus_per_node": 1}))
    assert start(launcher, "d", 1) == "3"


def test_more_gpus_than_the_host_has_are_refused_and_leave_nothing(launcher: LocalLauncher) -> None:
    with pytest.raises(SettingsError, match="gpus_per_node is 4, but pilots of this host have 3"):
        launcher.start(PilotRequest("a", "toy", resources={"gpus_per_node": 4}))
    assert list(launcher.folder.iterdir()) == []


def test_a_pilot_holds_no_pipe_and_no_session_of_its_starter(launcher: LocalLauncher) -> None:
    folder = launcher.folder
    command = [sys.executable, "-c", STARTER, str(folder)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == (b"started\n", b""), "and with that the pipes are closed"
    until((folder / "a" / bodies.BEGAN).exists, "the pilot")
    (first, second) = processes(folder / "a")
    assert os.getsid(first.pid) == os.getsid(second.pid) != os.getsid(0)
    for process in (first, second):
        files = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
        assert files[0] == "/dev/null"
        assert all(Path(file).parent == folder / "a" for file in files[1:])


def test_a_pilot_that_has_done_its_work_is_not_killed_by_being_asked_to_end(tmp_path: Path) -> None:
    script = (
        "import atexit, os, signal, sys\n"
        "from pathlib import Path\n"
        "from ndif_batch.launcher import pilot\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "Path(sys.argv[1], pilot.DRAIN).touch()\n"
        "pilot.main(Path(sys.argv[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=30).returncode == 0
