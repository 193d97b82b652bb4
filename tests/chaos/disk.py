"""A disk that can be filled: a small file system in memory, where this process may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.afterwards import afterwards

MEBIBYTES = 96
PART = 2**16


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return os.geteuid() == 0 and subprocess.run(tried, capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at ``folder``, while this process lives."""
    folder.mkdir()
    with afterwards(["umount", "--lazy", folder]):
        options = f"size={MEBIBYTES}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)], check=True)
        yield


def fill(ballast: Path) -> None:
    """Take all the room that is left."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(PART)):
            pass
