"""What runs inside a pilot: one worker, as the order in the pilot's folder says."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ndif_batch.errors import ConflictError, NotAllowedError
from ndif_batch.launcher.protocol import PilotRequest
from ndif_batch.worker.signals import SIGNALS, on_signals

ORDER, DRAIN, ENDED, ERROR = "order.json", "drain", "ended", "error"
OTHERS = 0o077


def write_order(root: Path, request: PilotRequest) -> Path:
    """Make a pilot's folder, with what it is to do; nobody else may enter, for submitit unpickles what lies there."""
    folder = root / request.name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise ConflictError(f"a pilot named {request.name!r} was started before") from None
    order = {
        "model": request.model,
        "config": None if request.config is None else str(request.config.absolute()),
        "environment": dict(request.environment),
        "idle_seconds": request.idle_seconds,
    }
    (folder / ORDER).write_text(json.dumps(order, indent=1))
    return folder


def private(root: Path) -> Path:
    """A folder that is ours alone, made if it is not there; ``NotAllowedError`` if it is someone else's."""
    root = root.expanduser().resolve()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.stat()
    if found.st_uid != os.geteuid():
        raise NotAllowedError(f"{root} belongs to another user: pilots run what lies there")
    if found.st_mode & OTHERS:
        root.chmod(0o700)
    return root


def carry_out(folder: Path) -> str:
    """Run the worker that the folder's order describes, and say why it ended."""
    order = json.loads((folder / ORDER).read_text())
    os.environ.update(order["environment"])
    if order["config"] is not None:
        os.environ["NDIF_BATCH_CONFIG"] = order["config"]
    from ndif_batch import worker
    from ndif_batch.config import load_settings

    return worker.run(load_settings(), order["model"], idle_seconds=order["idle_seconds"]).ended


def run(folder: Path, work: Callable[[Path], str] = carry_out) -> None:
    """Be the pilot whose folder this is. SIGTERM and SIGUSR2 end it in good order from the first line on.

    submitit, which calls this, would ignore the one and requeue at the other. A signal that came before this line is
    found in the folder: whoever asks a pilot to drain leaves the file ``drain`` first. Why it ended stands there, too.
    """

    def leave(number: signal.Signals) -> None:
        (folder / ENDED).write_text(number.name)
        sys.exit()

    with on_signals(leave):
        if (folder / DRAIN).exists():
            return
        try:
            (folder / ENDED).write_text(work(folder))
        except Exception as error:
            (folder / ERROR).write_text(str(error))
            raise


def main(folder: Path) -> None:
    """Be a whole process that is a pilot, and be deaf when that is over.

    Python forgets its handlers before it ends; whoever asks a pilot to end that is just about to would kill it, and it
    would look as if it had failed.
    """
    try:
        run(folder)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def leave_word(folder: Path) -> None:
    """Let the pilot of a folder, if it has not begun, never begin."""
    with suppress(FileNotFoundError):
        (folder / DRAIN).touch()


def last_words(folder: Path) -> str:
    """What the pilot of a folder failed with, or else why it ended, or nothing."""
    for name in (ERROR, ENDED):
        with suppress(OSError):
            return (folder / name).read_text()
    return ""


def failed(folder: Path) -> bool:
    """Whether the pilot of a folder ended with an error."""
    return (folder / ERROR).exists()


def ending(word: str, folder: Path) -> str:
    """How the pilot of a folder ended, in its launcher's ``word`` and its own."""
    return ": ".join(filter(None, (word, last_words(folder))))
