"""How long a device is at work."""

from __future__ import annotations

from time import perf_counter

import torch


class Stopwatch:
    """Runs from now until :meth:`stop`: on CUDA on the clock of the stream, so that waiting in line does not count."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = self._mark()
        self._ended = self._began

    def stop(self) -> None:
        """What was put on the stream so far is what is measured."""
        self._ended = self._mark()

    def seconds(self) -> float:
        """From beginning to end; on CUDA it waits for the end."""
        began, ended = self._began, self._ended
        if isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
            ended.synchronize()
            return float(began.elapsed_time(ended)) / 1000
        assert isinstance(began, float)
        assert isinstance(ended, float)
        return ended - began

    def _mark(self) -> torch.cuda.Event | float:
        if self._device.type != "cuda":
            return perf_counter()
        mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self._device))
        return mark
