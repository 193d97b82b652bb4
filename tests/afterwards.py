"""What must happen when a test run is over, however it ends: servers that it started do not outlive it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

WAIT = "cat >/dev/null"
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: it is killed when the process that started it ends."""


@contextmanager
def afterwards(*commands: Sequence[object]) -> Iterator[None]:
    """Runs the commands, one after the other, at the end of the block or of this process, even if that is killed.

    A process of its own waits for the end of a pipe that only this one holds, and carries them out.
    """
    script = " && ".join([WAIT, *(shlex.join(map(str, words)) for words in commands)])
    with TemporaryFile("w+") as said:
        watcher = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=said, stderr=said, cwd="/", start_new_session=True
        )
        try:
            yield
        finally:
            watcher.communicate()
            said.seek(0)
            assert watcher.returncode == 0, said.read()


def processes_of(folder: Path) -> list[str]:
    """The names of processes that know a folder by their command, environment or files; watchers are none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            files = [os.readlink(file) for file in (entry / "fd").iterdir()]
        except OSError:
            continue
        knows = os.fsencode(folder) in words + environment or any(file.startswith(f"{folder}/") for file in files)
        if knows and WAIT.encode() not in words:
            found.append((entry / "comm").read_text().strip())
    return found
