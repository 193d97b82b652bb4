"""Pilots as Slurm jobs, through submitit; seen with squeue and ended with scancel."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from ndif_batch.errors import UnavailableError
from ndif_batch.launcher import pilot
from ndif_batch.launcher.protocol import Observed, PilotRequest, PilotState
from ndif_batch.launcher.submission import submit
from ndif_batch.worker.walltime import RESERVE_SECONDS

COMMAND_SECONDS = 60
FORMAT = "%i|%j|%T|%r|%N|%k"
QUEUED = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING", "SUSPENDED", "STOPPED"})
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
    | {"OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}
)


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A row of squeue."""

    id: str
    name: str
    word: str
    reason: str
    nodes: str

    @property
    def state(self) -> PilotState:
        """Slurm's state word as a pilot's state."""
        if self.word in QUEUED:
            return PilotState.QUEUED
        if self.word in RUNNING:
            return PilotState.RUNNING
        return PilotState.ENDED if self.word in ENDED else PilotState.UNKNOWN


class SlurmLauncher:
    """For a cluster. A pilot is the job that has its name, and this launcher's folder as comment.

    Ids are not trusted: a slurmctld that dies just after a submission forgets the job and gives its id to the next.
    A pilot lives once: Slurm does not requeue it, for what it leaves is in our own queue already. Ended jobs are seen
    as long as slurmctld remembers them (``MinJobAge``).
    """

    def __init__(self, folder: Path, body: Callable[[Path], None] = pilot.main) -> None:
        self.folder = pilot.private(folder)
        self._body = body

    def start(self, request: PilotRequest) -> str:
        """Queue a pilot; its external id is the Slurm job's."""
        return submit(self.folder, request, self._body, self._executor).job_id

    def _executor(self, folder: Path, resources: Mapping[str, Any]) -> submitit.AutoExecutor:
        own: dict[str, Any] = {
            "name": folder.name,
            "slurm_comment": str(self.folder),
            "slurm_additional_parameters": {"no_requeue": True, **resources.get("slurm_additional_parameters", {})},
        }
        if "cpus_per_task" in resources:  # since 22.05 a step no longer takes this over from its job
            words = [f"--cpus-per-task={resources['cpus_per_task']}", *resources.get("slurm_srun_args", ())]
            own["slurm_srun_args"] = words
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(**{"slurm_signal_delay_s": int(RESERVE_SECONDS), **resources, **own})
        return executor

    def observe(self) -> Mapping[str, Observed]:
        """All that slurmctld knows; of two jobs with one name the younger."""
        jobs = sorted(self._jobs(), key=lambda job: int(job.id))
        return {job.name: Observed(job.state, job.id, self._reason(job), job.nodes) for job in jobs}

    def cancel(self, name: str) -> None:
        """scancel: SIGTERM, and SIGKILL after Slurm's ``KillWait``."""
        pilot.leave_word(self.folder / name)
        self._scancel(self._active(name))

    def drain(self, name: str) -> None:
        """SIGTERM to the pilot; one that waits leaves the queue."""
        pilot.leave_word(self.folder / name)
        jobs = self._active(name)
        self._scancel([job for job in jobs if job.state is PilotState.QUEUED])
        self._scancel([job for job in jobs if job.state is PilotState.RUNNING], "--signal=TERM")

    def _active(self, name: str) -> list[SlurmJob]:
        return [
            job for job in self._jobs() if job.name == name and job.state in (PilotState.QUEUED, PilotState.RUNNING)
        ]

    def _scancel(self, jobs: Sequence[SlurmJob], *options: str) -> None:
        if jobs:
            command("scancel", "--quiet", *options, *(job.id for job in jobs))

    def _jobs(self) -> Iterator[SlurmJob]:
        listed = command("squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", f"--format={FORMAT}")
        for line in listed.splitlines():
            *columns, comment = line.split("|", FORMAT.count("|"))
            if comment.strip() == str(self.folder):
                yield SlurmJob(*columns)

    def _reason(self, job: SlurmJob) -> str:
        if job.state is not PilotState.ENDED:
            return "" if job.reason == "None" else job.reason
        return pilot.ending(job.word, self.folder / job.name)


def command(*words: str) -> str:
    """What one of Slurm's commands prints; ``UnavailableError`` if it cannot be run or finds no slurmctld."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except FileNotFoundError:
        raise UnavailableError(f"{words[0]} is not on this machine", hint="install Slurm's client commands") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{words[0]} gave no answer in {COMMAND_SECONDS} s") from None
    if done.returncode:
        raise UnavailableError(f"{words[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
