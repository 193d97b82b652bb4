"""How busy a GPU is as nvidia-smi tells it, asked beside what is measured."""

from __future__ import annotations

import subprocess
import time
from threading import Thread
from types import TracebackType

COMMAND = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100", "-i", "0")


class Utilization:
    """As a context, notes ten times a second what share of the last moment the first GPU had a kernel at work."""

    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda
        self._seen: list[tuple[float, float]] = []

    def mean(self, begin: float, end: float) -> float | None:
        """From 0 to 1, between two times of ``perf_counter``; None if nothing was told."""
        seen = [share for at, share in self._seen if begin <= at <= end]
        return sum(seen) / len(seen) if seen else None

    def __enter__(self) -> Utilization:
        if self._cuda:
            self._asked = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True)
            self._thread = Thread(target=self._listen, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda:
            self._asked.terminate()
            self._asked.wait()
            self._thread.join()

    def _listen(self) -> None:
        assert self._asked.stdout is not None
        for line in self._asked.stdout:
            if line.strip().isdigit():
                self._seen.append((time.perf_counter(), int(line) / 100))
