"""In a real terminal: colours, live views, and an interrupt that ends them quietly."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ndif_batch.cli import watching
from ndif_batch.client import Client
from tests.cli.conftest import Run
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import working

ROOT = Path(__file__).parents[2]
INTERRUPTED = 130


class Terminal:
    """A command line in a pseudo-terminal; ``shown`` is all that it wrote so far."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self.shown = ""
        self._screen = screen

    def until(self, text: str | None) -> str:
        """Read until ``text`` is there, or to the end."""
        while text is None or text not in self.shown:
            try:
                piece = os.read(self._screen, 65536)
            except OSError:
                piece = b""
            if not piece:
                break
            self.shown += piece.decode(errors="replace")
        assert text is None or text in self.shown
        return self.shown


def heed_interrupts() -> None:
    """As in a terminal: who runs the tests in the background ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[Terminal]:
    screen, inner = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "ndif_batch.cli.main", *arguments]
    with subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, env=environment, preexec_fn=heed_interrupts
    ) as process:
        os.close(inner)
        yield Terminal(process, screen)
    os.close(screen)


def test_watching_the_queue_ends_with_an_interrupt(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    with terminal("watch", "--interval", "0.1") as watching:
        assert "JOBID" in watching.until("Resources")
        watching.process.send_signal(signal.SIGINT)
        shown = watching.until(None)
    assert watching.process.returncode == INTERRUPTED
    assert "Traceback" not in shown


LISTINGS = ("ls", "logs 1", "results ls", "model ls", "user ls", "token ls", "cluster status", "cluster pilots")


def test_every_listing_can_be_watched(run: Run, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Thrice:
        def wait(self, seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                raise KeyboardInterrupt

    run("sweep", "run", "sweep.yaml")
    monkeypatch.setattr(watching, "Event", Thrice)
    for verb in LISTINGS:
        waits: list[float] = []
        once, watched = run(*verb.split()), run(*verb.split(), "--watch", 7)
        assert (watched.code, waits) == (INTERRUPTED, [7.0] * 3), verb
        head, *_ = once.out.splitlines() or [""]
        assert watched.out.splitlines().count(head) == (3 if once.out else 0), verb
        assert len(watched.out.splitlines()) == len(once.out.splitlines()) * 3, verb
        assert watched.err == 3 * once.err, verb


def test_a_watched_listing_follows_the_queue_in_place_and_ends_with_an_interrupt(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    with terminal("ls", "--watch", "0.1") as listing:
        listing.until("PD")
        client.job(1).cancel()
        listing.until("CA")
        listing.process.send_signal(signal.SIGINT)
        shown = listing.until(None)
    assert listing.process.returncode == INTERRUPTED
    assert shown.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in shown[-40:]
    assert shown.count("\x1b[H") > 1
    assert "Traceback" not in shown


def test_waiting_shows_a_bar_and_ends_with_an_interrupt(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    with terminal("wait", "1") as waiting:
        waiting.until("PENDING")
        waiting.process.send_signal(signal.SIGINT)
        shown = waiting.until(None)
    assert waiting.process.returncode == INTERRUPTED
    assert "0/12" in shown
    assert "Traceback" not in shown


def test_watching_a_job_ends_when_it_has(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    with terminal("watch", "1") as watching:
        watching.until("PENDING")
        with working(client, ToyEngine()) as worker:
            worker.run()
        assert "12/12" in watching.until("COMPLETED")
    assert watching.process.returncode == 0


def test_a_heat_map_has_colours_in_a_terminal_unless_they_are_unwanted(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    with working(client, ToyEngine()) as worker:
        worker.run()
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal("results", "show", "1", "--save", "logit", **variables) as shown:
            assert ("\x1b[38;5;" in shown.until(None)) is coloured
            assert "rows: layer" in shown.shown
