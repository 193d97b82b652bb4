"""Signals that ask a worker to end in good order: Slurm's before the walltime, a supervisor's, the keyboard's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@contextmanager
def on_signals(action: Callable[[signal.Signals], object]) -> Iterator[None]:
    """While this lasts the first signal calls ``action`` with its number, and after it SIGINT interrupts at once.

    Others after the first do nothing: Slurm sends the same signal several times, by srun and by slurmstepd, and the
    second must not interrupt what the first began. In a thread other than the main one, where Python takes no
    signals, nothing changes.
    """
    if current_thread() is not main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for later in SIGNALS:
            signal.signal(later, _nothing)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        action(signal.Signals(number))

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_at_eof(pipe: int) -> None:
    """From now on SIGTERM comes to this process when the file descriptor ``pipe`` has nothing more to read.

    The other end of a pipe closes when the process that holds it dies, even of a signal that it cannot see.
    """

    def watch() -> None:
        while os.read(pipe, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="until-eof", daemon=True).start()


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler of Python's, so that a child process does not inherit that the signal is ignored."""
