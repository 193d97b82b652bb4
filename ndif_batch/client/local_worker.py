"""A worker in a process of its own beside this one: for notebooks, demonstrations and single machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ndif_batch.errors import UnavailableError

if TYPE_CHECKING:
    from ndif_batch.config import Settings
    from ndif_batch.queue.records import JobRecord

LOG_TAIL = 12
STOP_SECONDS = 20.0


class LocalWorker:
    """A running worker of ``model``. It ends with :meth:`stop`, with the block that it opens, or with this process.

    ``log`` is the file that has its log.
    """

    def __init__(self, model: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.model = model
        self.process = process
        self.log = log

    @classmethod
    def start(cls, settings: Settings, model: str, device: str = "auto") -> LocalWorker:
        """Start one; it loads the model while this process goes on.

        The pipe to its standard input ends with this process, however that dies, and the worker with the pipe. It has
        a session of its own, so that an interrupt (of a cell, at the keyboard) is this process's alone.
        """
        folder = settings.data_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"worker-{model}.log"
        command = [sys.executable, "-m", "ndif_batch.cli.main", "worker", "run", "--until-eof"]
        with path.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--model", model, "--device", device],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | settings.environment(),
                start_new_session=True,
            )
        return cls(model, process, path)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def check(self, record: JobRecord) -> None:
        """``UnavailableError`` with the end of its log if the worker has ended and a job of its model has not."""
        code = self.process.poll()
        if record.model != self.model or record.state.final or not code:
            return
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise UnavailableError(
            f"the worker {how} before job {record.id} had ended",
            hint="\n  ".join([f"the end of its log, {self.log}:", *lines]),
        )

    def stop(self) -> None:
        """Let it commit what it has and end; what it has not begun stays in the queue."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<worker of {self.model!r}, {'running' if self.running else 'ended'}>"
