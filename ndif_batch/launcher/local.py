"""Pilots as processes of this host, through submitit's local executor."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit

from ndif_batch.launcher import pilot
from ndif_batch.launcher.detached import CONTROLLER, DetachedExecutor
from ndif_batch.launcher.devices import free, listed
from ndif_batch.launcher.processes import pilot_processes
from ndif_batch.launcher.protocol import Observed, PilotRequest, PilotState
from ndif_batch.launcher.submission import submit


class LocalLauncher:
    """For one host. Each pilot is two processes: submitit's controller and the pilot proper.

    They outlive this one, and are found by their command lines, which end with the pilot's folder: an observer that
    started none of them sees them all. Each gets the first ``gpus_per_node`` of ``devices`` that no other one has.
    """

    def __init__(
        self, folder: Path, body: Callable[[Path], None] = pilot.main, devices: Sequence[str] = ("0",)
    ) -> None:
        self.folder = pilot.private(folder)
        self._body = body
        self._devices = tuple(devices)
        self._started: dict[str, submitit.Job[None]] = {}

    def start(self, request: PilotRequest) -> str:
        """Start a pilot now; its external id is its controller's process id."""
        job = submit(self.folder, request, self._body, self._executor)
        self._started[request.name] = job
        return job.job_id

    def observe(self) -> Mapping[str, Observed]:
        """Running pilots, and those started here that ended since the last look."""
        host = socket.gethostname()
        seen = {name: self._seen(name, job, host) for name, job in self._started.items()}
        for name, found in seen.items():
            if found.state is PilotState.ENDED:
                del self._started[name]
        for name, pid in reversed(self._processes()):
            seen[name] = Observed(PilotState.RUNNING, str(pid), node=host)
        return seen

    def cancel(self, name: str) -> None:
        """Kill a pilot's processes; the file ``drain`` ends one that is just being born."""
        pilot.leave_word(self.folder / name)
        while pids := [pid for found, pid in self._processes() if found == name]:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def drain(self, name: str) -> None:
        """SIGTERM to a pilot, through its controller or, if that died, to itself."""
        pilot.leave_word(self.folder / name)
        for found, pid in self._processes():
            if found == name:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                return

    def _executor(self, folder: Path, resources: Mapping[str, Any]) -> DetachedExecutor:
        checked = submitit.AutoExecutor(folder=folder, cluster="local")
        checked.update_parameters(**resources)
        devices = free(self._devices, self._held(), checked.parameters.get("gpus_per_node", 0))
        executor = DetachedExecutor(folder, devices)
        executor.update_parameters(**checked.parameters)
        return executor

    def _held(self) -> Iterator[str]:
        """The devices of all pilots of this host that are ours, in whatever folder."""
        for process in pilot_processes():
            with suppress(OSError):
                yield from listed(process.environment())

    def _seen(self, name: str, job: submitit.Job[None], host: str) -> Observed:
        state = job.state
        if state == "RUNNING":
            return Observed(PilotState.RUNNING, job.job_id, node=host)
        folder = self.folder / name
        word = "FAILED" if pilot.failed(folder) else "CANCELLED" if state == "INTERRUPTED" else "COMPLETED"
        return Observed(PilotState.ENDED, job.job_id, pilot.ending(word, folder))

    def _processes(self) -> list[tuple[str, int]]:
        """Name and process id of every process of a pilot, controllers first."""
        mine = [process for process in pilot_processes() if process.folder.parent == self.folder]
        mine.sort(key=lambda process: (process.module != CONTROLLER, process.folder.name, process.pid))
        return [(process.folder.name, process.pid) for process in mine]
