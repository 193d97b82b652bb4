"""submitit's local executor, for processes that have nothing of whoever starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.local.local import LocalExecutor, LocalJob

from ndif_batch.launcher.devices import VISIBLE

CONTROLLER, TASK = "submitit.local._local", "submitit.core._submit"
"""The modules of a pilot's two processes."""
LOG = "controller.log"


class DetachedExecutor(LocalExecutor):
    """Its controllers hold no pipe or terminal of their starter's, and outlive its session.

    submitit's own inherit all that: a caller that reads the output of ``scheduler run --once`` would wait until the
    last pilot ends, and an interrupt in the scheduler's terminal would end them all.
    """

    def __init__(self, folder: Path, devices: Sequence[str]) -> None:
        super().__init__(folder)
        self._devices = devices

    def _submit_command(self, command: str) -> LocalJob[Any]:
        controller = [sys.executable, "-m", CONTROLLER, str(self.folder)]
        with (self.folder / LOG).open("wb") as log:
            process = subprocess.Popen(
                controller,
                env=os.environ | self._variables(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process)

    def _variables(self, command: str) -> dict[str, str]:
        """What submitit's controller goes by."""
        own = {
            "NTASKS": "1",
            "NODEID": "0",
            "JOB_NUM_NODES": "1",
            "COMMAND": command,
            "TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SIGNAL_DELAY_S": "30",
            "WITH_SHELL": "",
        }
        variables = {f"SUBMITIT_LOCAL_{name}": value for name, value in own.items()}
        return variables | {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_STDERR_TO_STDOUT": "",
            VISIBLE: ",".join(self._devices),
        }
