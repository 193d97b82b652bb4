"""A worker in a process of its own beside this one, for demonstrations and single machines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ndif_batch.errors import UnavailableError

if TYPE_CHECKING:
    from ndif_batch.config import Settings
    from ndif_batch.queue.records import JobRecord

LOG_TAIL = 12
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """The process and the file that has its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self, record: JobRecord) -> None:
        """``UnavailableError`` with the end of its log if the worker has ended and the job has not."""
        code = self.process.poll()
        if code is None or record.state.final or code == 0:
            return
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise UnavailableError(
            f"the worker {how} before job {record.id} had ended",
            hint="\n  ".join([f"the end of its log, {self.log}:", *lines]),
        )


@contextmanager
def local_worker(settings: Settings, model: str) -> Iterator[LocalWorker]:
    """A worker that ends when no job of ``model`` is left, or with the block."""
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"worker-{model}.log"
    command = [sys.executable, "-m", "ndif_batch.cli.main", "worker", "run", "--model", model, "--until-idle"]
    with path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | settings.environment()
        )
    try:
        yield LocalWorker(process, path)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
