"""The command serve: a socket that only its owner reaches, a loopback port, a scheduler beside it, and a good end."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.errors import ConflictError, NotAllowedError, UsageError
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.http import connect
from ndif_batch.server.process import listening, listening_on, where
from tests.cli.conftest import Run, run, settled
from tests.waiting import until

__all__ = ["run", "settled"]


@contextmanager
def started(client: Client, *options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves the client's queue, and its url."""
    command = [sys.executable, "-W", "error", "-m", "ndif_batch.cli.main", "serve", *map(str, options)]
    environment = os.environ | client.settings.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        yield process, process.stderr.readline().strip().removeprefix("NDIF_BATCH_URL=")
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def test_a_server_answers_at_its_socket_and_ends_when_told(behind: Client, tmp_path: Path) -> None:
    path = tmp_path / "private" / "socket"
    behind.queue.set_role("ada", Role.USER, actor="test")
    token = behind.queue.create_token("ada", actor="test").text
    with started(behind, "--socket", path) as (process, url):
        assert url == f"unix:{path}"
        api = connect(url, token)
        assert api.me().user == "ada"
        api.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not path.exists()


def test_a_scheduler_beside_it_leads_and_ends_with_it(behind: Client) -> None:
    with started(behind, "--port", 0, "--with-scheduler") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        until(lambda: not behind.queue.acquire_leader("scheduler", "a test", 0), "a leader")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert behind.queue.acquire_leader("scheduler", "a test", 0)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "localhost", "example.org"])
def test_only_this_host_is_served(run: Run, host: str) -> None:
    refused = run("serve", "--host", host)
    assert (refused.code, "is not a loopback address" in refused.err) == (2, True)


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(NotAllowedError, match="others may enter"), listening(tmp_path / "socket"):
        pass


def test_a_socket_that_is_answered_is_not_taken_and_one_that_was_left_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "socket"
    with listening(path) as first:
        assert where(first) == f"unix:{path}"
        with pytest.raises(ConflictError, match="answers at"), listening(path):
            pass
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(path):
        assert path.is_socket()
    path.write_text("mine")
    with pytest.raises(UsageError, match="is no socket"), listening(path):
        pass


def test_a_port_that_is_taken_says_so() -> None:
    with listening_on("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConflictError, match="cannot listen"), listening_on("127.0.0.1", port):
            pass
