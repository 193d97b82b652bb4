"""A real Slurm for tests: `slurm/devcluster` on free ports in a directory of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import toy
from tests.afterwards import afterwards

ROOT = Path(toy.__file__).parents[1]
SCRIPT = ROOT / "slurm/devcluster"


@dataclass(frozen=True)
class DevCluster:
    """A cluster that is up."""

    folder: Path
    port: int

    @property
    def conf(self) -> str:
        return str(self.folder / "etc/slurm.conf")

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(SCRIPT), "--dir", str(self.folder)]

    def __call__(self, *words: object) -> str:
        """What a command of devcluster prints; fails with what it says."""
        done = self.tried(*words)
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def tried(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *map(str, words)], capture_output=True, text=True, timeout=120)

    def slurm(self, *words: str) -> str:
        """What one of Slurm's own commands prints."""
        environment = {"SLURM_CONF": self.conf, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        return subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


@contextmanager
def devcluster(nodes: int = 2, gpus: int = 2) -> Iterator[DevCluster]:
    """A cluster, and nothing of it afterwards, even if this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = DevCluster(folder / "state", free_ports(1 + nodes))
    with afterwards([*cluster.command, "down", "--purge"], ["rm", "-r", folder]):
        cluster("up", nodes, gpus, "--port", cluster.port)
        yield cluster


def free_ports(count: int) -> int:
    """The first of so many ports in a row to which nothing is bound; below those that the kernel hands out.

    Each process begins to look elsewhere, so that two test runs at once do not find the same.
    """
    places = (20_000 + 50 * ((os.getpid() + turn) % 200) for turn in range(200))
    return next(first for first in places if all(map(is_free, range(first, first + count))))


def is_free(port: int) -> bool:
    with ExitStack() as stack:
        bound = stack.enter_context(socket.socket())
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return not _refused(bound, port)


def _refused(bound: socket.socket, port: int) -> bool:
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        return True
    return False
