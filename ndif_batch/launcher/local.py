"""Pilots as processes of this host, through submitit's local executor."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import submitit

from ndif_batch.launcher import pilot
from ndif_batch.launcher.protocol import Observed, PilotRequest, PilotState
from ndif_batch.launcher.submission import submit

CONTROLLER, TASK = "submitit.local._local", "submitit.core._submit"


class LocalLauncher:
    """For one host. Each pilot is two processes: submitit's controller and the pilot proper.

    They outlive this one, and are found by their command lines, which end with the pilot's folder: an observer that
    started none of them sees them all. ``gpus_per_node`` gives every pilot the first so many GPUs.
    """

    def __init__(self, folder: Path, body: Callable[[Path], None] = pilot.run) -> None:
        self.folder = pilot.private(folder)
        self._body = body
        self._started: dict[str, submitit.Job[None]] = {}

    def start(self, request: PilotRequest) -> str:
        """Start a pilot now; its external id is its controller's process id."""
        job = submit("local", self.folder, request, self._body)
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

    def _seen(self, name: str, job: submitit.Job[None], host: str) -> Observed:
        state = job.state
        if state == "RUNNING":
            return Observed(PilotState.RUNNING, job.job_id, node=host)
        error = pilot.error_of(self.folder / name)
        how = f"FAILED: {error}" if error else "CANCELLED" if state == "INTERRUPTED" else "COMPLETED"
        return Observed(PilotState.ENDED, job.job_id, how)

    def _processes(self) -> list[tuple[str, int]]:
        """Name and process id of every process of a pilot, controllers first."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and (place := self._pilot_of(entry)) is not None:
                module, name = place
                found.append((module != CONTROLLER, name, int(entry.name)))
        return [(name, pid) for _, name, pid in sorted(found)]

    def _pilot_of(self, entry: Path) -> tuple[str, str] | None:
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        if len(words) < 3:
            return None
        module, folder = os.fsdecode(words[-3]), Path(os.fsdecode(words[-2]))
        return (module, folder.name) if module in (CONTROLLER, TASK) and folder.parent == self.folder else None
