"""What the pilots of the tests do in place of a worker; submitit finds these functions by their names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ndif_batch.errors import NotFoundError
from ndif_batch.launcher import pilot

BEGAN = "began"
LIFETIME_SECONDS = 120


def waiting(folder: Path) -> None:
    """Works until it is asked to end."""
    pilot.run(folder, work=_wait)


def short(folder: Path) -> None:
    """Finds nothing to do."""
    pilot.run(folder, work=_note)


def failing(folder: Path) -> None:
    """Cannot have its model."""
    pilot.run(folder, work=_fail)


def _note(folder: Path) -> str:
    """Says where it runs; renamed into place, so that who reads it reads all of it."""
    names = ("CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME", "SLURM_CPUS_PER_TASK")
    partial = folder / f"{BEGAN}.tmp"
    partial.write_text("".join(f"{name}={os.environ.get(name)}\n" for name in names))
    partial.rename(folder / BEGAN)
    return "it was short"


def _wait(folder: Path) -> str:
    _note(folder)
    try:
        time.sleep(LIFETIME_SECONDS)
    finally:
        (folder / "drained").touch()
    return "nobody asked"


def _fail(folder: Path) -> str:
    raise NotFoundError("there is no model 'gtp2'")
