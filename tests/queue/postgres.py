"""A PostgreSQL server of one's own: in a temporary folder, behind a Unix socket, without a TCP port."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tests.afterwards import afterwards

DEBIAN = Path("/usr/lib/postgresql")
INSTALL = "PostgreSQL is not installed: `make test` installs it, or `apt-get install postgresql` and `.[postgres]`"


def programs() -> Path:
    """The folder of ``initdb`` and ``pg_ctl``; ``FileNotFoundError`` says what to install."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise FileNotFoundError(INSTALL)


@dataclass(frozen=True)
class Server:
    """A server that runs: the URL of its database, and the ``pg_ctl`` that controls it."""

    url: str
    control: list[str]

    def restart(self) -> None:
        """Let every process of the server quit as if it had crashed, and start it again."""
        _quietly([*self.control, "-m", "immediate", "restart"])


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The URL of an empty database while it runs: see :func:`started`."""
    with started(*options) as running:
        yield running.url


@contextmanager
def started(*options: str) -> Iterator[Server]:
    """A server of an empty database, that runs no longer than this process.

    ``options`` are settings such as ``fsync=off``. Root, whom PostgreSQL refuses, runs it as the user ``postgres``.
    """
    folder = programs()
    home = Path(mkdtemp(prefix="ndif-batch-"))
    as_root = os.geteuid() == 0
    if as_root:
        shutil.chown(home, "postgres")
    run = ["runuser", "-u", "postgres", "--"] if as_root else []
    data, settings = str(home / "data"), " ".join(f"-c {option}" for option in ("listen_addresses=''", *options))
    control = [*run, str(folder / "pg_ctl"), "-w", "-D", data]
    stop = ["sh", "-c", f"! {shlex.join([*control, 'status'])} || {shlex.join([*control, '-m', 'immediate', 'stop'])}"]
    with afterwards(stop, ["rm", "-r", home]):
        _quietly(
            [*run, str(folder / "initdb"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D", data]
        )
        control += ["-l", str(home / "log"), "-o", f"-k {home} {settings}"]
        _quietly([*control, "start"])
        yield Server(f"postgresql+psycopg://postgres@/postgres?host={home}", control)


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
    assert not done.returncode, f"{' '.join(command)}: {done.stderr}"
